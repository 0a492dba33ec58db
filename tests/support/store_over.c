/* store_over.c: see store_over.h */
#include "support/store_over.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

pi2_store *store_over(pi2_reader *reader, bool on_demand_only) {
    pi2_store *store = NULL;
    const pi2_store_options options = { .reader = reader, .on_demand_only = on_demand_only };
    if (pi2_store_create(&options, &store) != PI2_OK) fail_msg("%s", pi2_error_text());
    return store;
}
