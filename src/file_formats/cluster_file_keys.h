/* cluster_file_keys.h: the metadata keys of a cluster file, for its writer and its reader. */
#ifndef PI2_FILE_FORMATS_CLUSTER_FILE_KEYS_H
#define PI2_FILE_FORMATS_CLUSTER_FILE_KEYS_H

/* docs/cluster_file_format.md says what each holds. */
#define PI2_KEY_PREFIX "powerinfer2."
#define PI2_KEY_VERSION "powerinfer2.version"
#define PI2_KEY_FEATURES "powerinfer2.features"
#define PI2_KEY_SOURCE_NAME "powerinfer2.source.name"
#define PI2_KEY_SOURCE_BYTES "powerinfer2.source.bytes"
#define PI2_KEY_SOURCE_HEADER_HASH "powerinfer2.source.header_hash"
#define PI2_KEY_SOURCE_SAMPLE_HASH "powerinfer2.source.sample_hash"
#define PI2_KEY_SOURCE_CONTENT_HASH "powerinfer2.source.content_hash"
#define PI2_KEY_TILE_ROWS "powerinfer2.tile.rows"
#define PI2_KEY_TILE_ALIGNMENT "powerinfer2.tile.alignment"

#define PI2_KEY_TABLE_NAMES "powerinfer2.table.names"
#define PI2_KEY_TABLE_CHECKSUMS "powerinfer2.table.checksums"

#define PI2_KEY_TENSOR_NAMES "powerinfer2.tensor.names"
#define PI2_KEY_TENSOR_TYPES "powerinfer2.tensor.types"
#define PI2_KEY_TENSOR_ROWS "powerinfer2.tensor.rows"
#define PI2_KEY_TENSOR_MATRIX_ROWS "powerinfer2.tensor.matrix_rows"
#define PI2_KEY_TENSOR_COLUMNS "powerinfer2.tensor.columns"
#define PI2_KEY_TENSOR_IS_RAW "powerinfer2.tensor.is_raw"

#define PI2_KEY_GROUP_NAMES "powerinfer2.group.names"
#define PI2_KEY_GROUP_KINDS "powerinfer2.group.kinds"
#define PI2_KEY_GROUP_LAYERS "powerinfer2.group.layers"
#define PI2_KEY_GROUP_EXPERTS "powerinfer2.group.experts"
#define PI2_KEY_GROUP_EXTENT_COUNTS "powerinfer2.group.extent_counts"
#define PI2_KEY_GROUP_CLUSTER_NEURONS "powerinfer2.group.cluster_neurons"

#define PI2_KEY_EXTENT_OFFSETS "powerinfer2.extent.offsets"
#define PI2_KEY_EXTENT_BYTES "powerinfer2.extent.bytes"
#define PI2_KEY_EXTENT_CHECKSUMS "powerinfer2.extent.checksums"
#define PI2_KEY_EXTENT_PIECE_COUNTS "powerinfer2.extent.piece_counts"

#define PI2_KEY_PIECE_TENSORS "powerinfer2.piece.tensors"
#define PI2_KEY_PIECE_OFFSETS "powerinfer2.piece.offsets"
#define PI2_KEY_PIECE_ROW_BEGINS "powerinfer2.piece.row_begins"
#define PI2_KEY_PIECE_ROW_COUNTS "powerinfer2.piece.row_counts"
#define PI2_KEY_PIECE_COLUMN_BEGINS "powerinfer2.piece.column_begins"
#define PI2_KEY_PIECE_COLUMN_COUNTS "powerinfer2.piece.column_counts"

#define PI2_KEY_LOOKUP_CHECKSUMS "powerinfer2.lookup.checksums"

#define PI2_FEATURE_NEURONS "neurons"
#define PI2_FEATURE_UNGATED "ungated"
#define PI2_FEATURE_BUNDLES "bundles"
#define PI2_FEATURE_FINE_UNITS "fine_units"
#define PI2_KEY_BANK_LAYERS "powerinfer2.bank.layers"
#define PI2_KEY_BANK_EXPERTS "powerinfer2.bank.experts"
#define PI2_KEY_BANK_NEURONS "powerinfer2.bank.neurons"
#define PI2_KEY_BANK_WIDTHS "powerinfer2.bank.widths"
#define PI2_KEY_BANK_UP_TENSORS "powerinfer2.bank.up_tensors"
#define PI2_KEY_BANK_DOWN_TENSORS "powerinfer2.bank.down_tensors"
#define PI2_KEY_BANK_UNIT_NEURONS "powerinfer2.bank.unit_neurons"
#define PI2_KEY_BANK_UNIT_BYTES "powerinfer2.bank.unit_bytes"
#define PI2_KEY_BANK_HEAD_BYTES "powerinfer2.bank.head_bytes"
#define PI2_KEY_BANK_HEAD_CHECKSUMS "powerinfer2.bank.head_checksums"
#define PI2_KEY_BANK_IS_LEFT_OUT "powerinfer2.bank.is_left_out"
#define PI2_KEY_BANK_STATISTICS "powerinfer2.bank.statistics"

#define PI2_CLUSTER_GROUP_TENSOR_TYPE 24u /* I8: bytes, to whoever does not know better */

#endif
