/*
 * predictor_file.h: the file that a predictor lies in (docs/predictor_format.md). Every byte of it is untrusted.
 */
#ifndef PI2_PREDICTOR_PREDICTOR_FILE_H
#define PI2_PREDICTOR_PREDICTOR_FILE_H

#include "predictor/predictor.h"

/**
 * Reads and checks a predictor's header and its list of layers; its data are not read.
 * Errors  IO, FORMAT (not one, damaged, impossible numbers: byte offset), UNSUPPORTED (a newer version, another kind),
 *         MEMORY. predictor_out is zeroed then.
 */
pi2_status pi2_predictor_read(const char *path, pi2_predictor *predictor_out);

/** The same from bytes: the file's first ones, `count` of them, of a file of file_bytes. */
pi2_status pi2_predictor_parse(const char *path, const uint8_t *bytes, uint64_t count, uint64_t file_bytes,
                               pi2_predictor *predictor_out);

/** How many of them header and list take, as the first `count` say, which should be 128: not more than the file has,
 *  whatever they are. */
uint64_t pi2_predictor_head_bytes(const uint8_t *bytes, uint64_t count, uint64_t file_bytes);

/** Bytes of the layers' data, all together, as they lie in memory. */
uint64_t pi2_predictor_data_bytes(const pi2_predictor *predictor);

/**
 * Reads the layers' data into memory[pi2_predictor_data_bytes()], aligned to PI2_PREDICTOR_ALIGNMENT, which the layers
 * point into from then on, and compares their checksums.
 * Errors  IO, FORMAT (another file by now, a layer's checksum, a number that is none: layer, byte offset)
 */
pi2_status pi2_predictor_load(const char *path, pi2_predictor *predictor, void *memory);

/**
 * Writes a predictor whose layers have size and data. inputs: files that it may not replace, NULL at the end; NULL:
 * none.
 * Offsets and checksums of the layers are filled in.
 * Errors  INVALID (what lies there), IO
 */
pi2_status pi2_predictor_write(const char *path, const char *const *inputs, pi2_predictor *predictor);
/** Whether it could be written there, before anything that takes long. */
pi2_status pi2_predictor_check_place(const char *path, const char *const *inputs);

#endif
