/*
 * pass_choice.h: whether a pass computes the neurons that fire alone, or all of them; and how it cuts them.
 *
 * Alone they are read in as many small reads as are missing; all of them stream, in long reads. One token uses a tenth;
 * eight use more than half, each with sums of its own, and then long reads and a matrix product for all tokens at
 * once are faster. The bits are the same, so only time decides.
 */
#ifndef PI2_PIPELINE_PASS_CHOICE_H
#define PI2_PIPELINE_PASS_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

/** Neurons that are quantised in one piece; a whole number of every type's blocks. */
enum { PI2_NEURON_SEGMENT = 1024 };
/** Parts, of whole segments, that a layer with late neurons is computed in, at most. */
enum { PI2_NEURON_PARTS = 8 };
/** Units that a thread asks for together. */
enum { PI2_WANTED_TOGETHER = 16 };

/**
 * Whether so many small reads and bytes_beside in long ones are clearly faster than long_bytes: by a third and more,
 * since small reads suffer more where others use the disk or the processors. Pure.
 */
bool pi2_small_reads_pay(double small_reads, double bytes_beside, double long_bytes);

/** What both ways cost. */
typedef struct pi2_pass_choice {
    uint64_t units, slots;     /* of the model's neurons, and those that memory holds */
    uint64_t unit_bytes;
    uint64_t streamed_bytes;   /* that a dense pass reads and one by neuron does without */
    uint64_t emptied;          /* slots whose units it takes from memory, which then are read again, in long reads */
    double used;               /* share of the units that one token uses; 0: not known yet */
    double missed;             /* of those, the share that is in no slot; asked for with `used` only */
} pi2_pass_choice;

/** Whether a pass of so many tokens goes by neuron. One token always does. Pure. */
bool pi2_pass_goes_by_neuron(const pi2_pass_choice *choice, uint32_t tokens);

/** Learns from a pass of one token: the units that it used, and those of them that were there. */
void pi2_pass_choice_note(pi2_pass_choice *choice, uint64_t uses, uint64_t hits);

#endif
