/* string.h: all of it that headers which the device shares with the host use; no C library is there. */
#ifndef PI2_BACKENDS_HEXAGON_FREESTANDING_STRING_H
#define PI2_BACKENDS_HEXAGON_FREESTANDING_STRING_H

#define memcpy __builtin_memcpy

#endif
