/* sizes.h: sizes in bytes as people write and read them. */
#ifndef POWERINFER2_SIZES_H
#define POWERINFER2_SIZES_H

#include <stddef.h>
#include <stdint.h>

#include "powerinfer2/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Reads a size: "123456", "64M", "1.5G", "48MiB". K, M, G and T (either case, with or without B)
 * are powers of 1000; Ki, Mi, Gi and Ti (with or without B) are powers of 1024. A fraction needs
 * a unit and is rounded down to whole bytes. Nothing may stand before or after, no sign, no space.
 * Errors  INVALID (the text names what was read); *bytes_out is then 0
 */
PI2_API pi2_status pi2_parse_size(const char *text, uint64_t *bytes_out);

enum { PI2_SIZE_TEXT_BYTES = 24 };

/**
 * Writes a size in powers of 1000: "512 B", "3.1 kB", "64.0 MB", "4.11 GB".
 * text  shape [PI2_SIZE_TEXT_BYTES]. Returns text.
 */
PI2_API const char *pi2_format_size(uint64_t bytes, char text[PI2_SIZE_TEXT_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
