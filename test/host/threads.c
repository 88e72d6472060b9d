#include "host.h"
void mode_threads(void) {}
