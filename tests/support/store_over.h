/* store_over.h: a store over a reader, for tests of its regions. Closing it closes the reader. */
#ifndef PI2_TESTS_SUPPORT_STORE_OVER_H
#define PI2_TESTS_SUPPORT_STORE_OVER_H

#include "storage/reader.h"
#include "store/store.h"

/** Fails the test where it cannot. */
pi2_store *store_over(pi2_reader *reader, bool on_demand_only);

#endif
