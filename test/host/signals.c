#include "host.h"
void mode_signals(void) {}
