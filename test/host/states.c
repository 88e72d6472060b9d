#include "host.h"
void mode_states(void) {}
