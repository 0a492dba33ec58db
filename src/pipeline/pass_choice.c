/* pass_choice.c: see pass_choice.h. */
#include "pipeline/pass_choice.h"

#include <math.h>

/*
 * Nanoseconds on the machines that were measured, whose disks give 50 to 120 thousand small reads and 1 to 3.6 GB a
 * second and whose memory 12 to 40 GB. Only their proportions matter, and those are alike.
 */
static const double small_read_ns = 16000, stream_byte_ns = 0.65, memory_byte_ns = 0.08;
static const double clearly_less = 0.7;
/* Computing: a weight of a neuron by itself against one of a matrix, and a further token of a matrix product. */
static const double alone_factor = 2, further_token = 1.0 / 9;
static const double used_at_first = 0.15, newest = 0.25;

bool pi2_pass_goes_by_neuron(const pi2_pass_choice *choice, uint32_t tokens) {
    if (tokens <= 1) return true;
    const double units = (double)choice->units, slots = (double)choice->slots;
    const double one = choice->used > 0 ? choice->used : used_at_first;
    const double missed = choice->used > 0 ? choice->missed : slots < units ? 1 - slots / units : 0;
    const double used = units * (1 - pow(1 - one, tokens));
    /* Further tokens' neurons are the colder ones: no more are there than there are slots. */
    double absent = used - slots > used * missed ? used - slots : used * missed;
    if (slots >= units) absent = 0;
    const double compute_ns = units * (double)choice->unit_bytes * memory_byte_ns;
    const double alone_ns = compute_ns * one * tokens * alone_factor;
    const double all_ns = compute_ns * (1 + further_token * tokens);
    const double again_ns = (double)choice->emptied * (double)choice->unit_bytes * stream_byte_ns;
    return fmax(absent * small_read_ns, alone_ns) <
           fmax((double)choice->streamed_bytes * stream_byte_ns, all_ns) + again_ns;
}

void pi2_pass_choice_note(pi2_pass_choice *choice, uint64_t uses, uint64_t hits) {
    if (uses == 0 || choice->units == 0) return;
    const double used = (double)uses / (double)choice->units, missed = (double)(uses - hits) / (double)uses;
    const double share = choice->used > 0 ? newest : 1;
    choice->used += share * (used - choice->used);
    choice->missed += share * (missed - choice->missed);
}

bool pi2_small_reads_pay(double small_reads, double bytes_beside, double long_bytes) {
    return small_reads * small_read_ns + bytes_beside * stream_byte_ns < clearly_less * long_bytes * stream_byte_ns;
}
