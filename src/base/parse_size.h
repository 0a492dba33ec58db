/* parse_size.h: sizes in bytes as people write and read them: public, because programs take them. */
#ifndef PI2_BASE_PARSE_SIZE_H
#define PI2_BASE_PARSE_SIZE_H

#include "powerinfer2/sizes.h"

#endif
