/* sha256.h: the checksum that servers tell of large files (FIPS 180-4). */
#ifndef PI2_CLI_SHA256_H
#define PI2_CLI_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct pi2_sha256 {
    uint32_t state[8];
    uint64_t bytes;
    unsigned char block[64]; /* what has not filled one yet */
} pi2_sha256;

enum { PI2_SHA256_TEXT_BYTES = 65 };

void pi2_sha256_begin(pi2_sha256 *sum);
void pi2_sha256_add(pi2_sha256 *sum, const unsigned char *bytes, size_t count);
/** text_out: 64 digits, lower case, and a NUL. */
void pi2_sha256_end(pi2_sha256 *sum, char text_out[PI2_SHA256_TEXT_BYTES]);

#endif
