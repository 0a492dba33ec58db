/* cluster_file_bank_names.h: the tensors that hold a bank of neurons, for the file's writer and its reader. */
#ifndef PI2_FILE_FORMATS_CLUSTER_FILE_BANK_NAMES_H
#define PI2_FILE_FORMATS_CLUSTER_FILE_BANK_NAMES_H

#include "file_formats/cluster_file.h"

enum { PI2_CLUSTER_NAME_BYTES = 48 };

/** "pi2.blk.3.neurons" or "pi2.blk.3.expert.7.neurons"; the head's ends in ".head". */
void pi2_cluster_name_bank(char name[PI2_CLUSTER_NAME_BYTES], const pi2_neuron_bank *bank, bool is_head);

#endif
