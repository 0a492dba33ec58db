/* kv_pages.c: pages of a key-value cache, counted by the sequences that hold them. */
#include "pipeline/kv_pages.h"

#include "backends/cpu/cpu_backend.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"

enum {
    BLOCK_PAGES = 16, /* a sequence begins, or goes on elsewhere, where so many are unused: its pages lie together */
    COPIES_MOST = 2   /* of the tiles that are written only the first and the last keep other positions */
};

typedef struct page_copy { uint32_t from, to; } page_copy;

/* One sequence's. */
typedef struct page_table {
    uint32_t *pages; /* [tile_count] */
    uint32_t tile_count, copy_count;
    page_copy copies[COPIES_MOST]; /* each `from` is held until it is copied */
} page_table;

struct pi2_kv_pages {
    uint32_t *holders;   /* [page_count]: sequences, and copies to be made, that hold the page */
    page_table *tables;  /* [sequences] */
    uint32_t *entries;   /* of all tables */
    uint32_t page_count, sequences, tile_most, unused, touched;
    uint32_t first_unused; /* no page before it is */
};

pi2_status pi2_kv_pages_create(uint32_t page_count, uint32_t sequences, uint32_t tile_most, pi2_kv_pages **pages_out) {
    pi2_kv_pages *pages = calloc(1, sizeof *pages);
    *pages_out = pages;
    if (!pages) return pi2_fail(PI2_ERR_MEMORY, "no memory for the list of a key-value cache's pages");
    *pages = (pi2_kv_pages){ .page_count = page_count, .sequences = sequences, .tile_most = tile_most,
                             .unused = page_count };
    pages->holders = calloc(page_count + (size_t)1, sizeof *pages->holders);
    pages->tables = calloc(sequences, sizeof *pages->tables);
    pages->entries = calloc(sequences * (size_t)tile_most + 1, sizeof *pages->entries);
    if (!pages->holders || !pages->tables || !pages->entries) {
        pi2_kv_pages_free(pages);
        *pages_out = NULL;
        return pi2_fail(PI2_ERR_MEMORY, "no memory for the list of %u pages of a key-value cache", page_count);
    }
    for (uint32_t s = 0; s < sequences; s++) pages->tables[s].pages = pages->entries + (size_t)s * tile_most;
    return PI2_OK;
}

void pi2_kv_pages_free(pi2_kv_pages *pages) {
    if (!pages) return;
    free(pages->holders);
    free(pages->tables);
    free(pages->entries);
    free(pages);
}

const uint32_t *pi2_kv_pages_of(const pi2_kv_pages *pages, uint32_t sequence) { return pages->tables[sequence].pages; }

uint32_t pi2_kv_pages_unused(const pi2_kv_pages *pages) { return pages->unused; }
uint32_t pi2_kv_pages_touched(const pi2_kv_pages *pages) { return pages->touched; }

static uint32_t tiles_of(uint32_t positions) { return positions / PI2_KV_TILE + (positions % PI2_KV_TILE != 0); }

uint64_t pi2_kv_pages_sequence_bytes(uint32_t positions) {
    return sizeof(page_table) + tiles_of(positions) * sizeof(uint32_t);
}

uint32_t pi2_kv_pages_wanted(const pi2_kv_pages *pages, uint32_t sequence, uint32_t first, uint32_t end) {
    const page_table *table = &pages->tables[sequence];
    uint32_t wanted = 0;
    for (uint32_t t = first / PI2_KV_TILE; t < tiles_of(end); t++) {
        wanted += t >= table->tile_count || pages->holders[table->pages[t]] > 1;
    }
    return wanted;
}

static pi2_status refuse(const pi2_kv_pages *pages, uint32_t wanted) {
    return pi2_fail(PI2_ERR_CONTEXT, "the key-value cache holds %u tokens of all sequences together, in pages of %d: "
                    "%u are left and %u are needed; end or cut another session, or plan for more branch_tokens",
                    pages->page_count * PI2_KV_TILE, PI2_KV_TILE, pages->unused, wanted);
}

pi2_status pi2_kv_pages_check(const pi2_kv_pages *pages, uint32_t sequence, uint32_t first, uint32_t end,
                              uint32_t *taken_io) {
    const uint32_t wanted = pi2_kv_pages_wanted(pages, sequence, first, end) + *taken_io;
    *taken_io = wanted;
    return wanted <= pages->unused ? PI2_OK : refuse(pages, wanted);
}

/* ---- which page ---- */

static bool is_unused(const pi2_kv_pages *pages, uint32_t page) {
    return page < pages->page_count && pages->holders[page] == 0;
}

/* The first block that nobody has begun, or else the first page; one is unused. */
static uint32_t first_of_block(pi2_kv_pages *pages) {
    while (pages->holders[pages->first_unused]) pages->first_unused++;
    uint32_t block = (pages->first_unused + BLOCK_PAGES - 1) / BLOCK_PAGES * BLOCK_PAGES;
    for (; block < pages->page_count; block += BLOCK_PAGES) {
        uint32_t page = block;
        while (page < block + BLOCK_PAGES && is_unused(pages, page)) page++;
        if (page == block + BLOCK_PAGES || page == pages->page_count) return block;
    }
    return pages->first_unused;
}

static uint32_t take(pi2_kv_pages *pages, uint32_t page) {
    pages->holders[page] = 1;
    pages->unused--;
    if (pages->touched <= page) pages->touched = page + 1;
    return page;
}

/* For the tile of a table: behind the tile before it, if that is possible. */
static uint32_t take_page(pi2_kv_pages *pages, const page_table *table, uint32_t tile) {
    const uint32_t behind = tile ? table->pages[tile - 1] + 1 : 0;
    return take(pages, tile && is_unused(pages, behind) ? behind : first_of_block(pages));
}

/* The first one, wherever the table's others are. */
static uint32_t take_first_page(pi2_kv_pages *pages) {
    while (pages->holders[pages->first_unused]) pages->first_unused++;
    return take(pages, pages->first_unused);
}

static void give_page(pi2_kv_pages *pages, uint32_t page) {
    assert(pages->holders[page]);
    if (--pages->holders[page]) return;
    pages->unused++;
    if (pages->first_unused > page) pages->first_unused = page;
}

/* ---- what a sequence holds ---- */

/* The tile gets a page of its own for the page that it shares, which is held for the copy, if there is to be one. */
static void part_tile(pi2_kv_pages *pages, page_table *table, uint32_t tile, uint32_t page, bool keeps_others) {
    const uint32_t shared = table->pages[tile];
    table->pages[tile] = page;
    if (keeps_others) table->copies[table->copy_count++] = (page_copy){ shared, table->pages[tile] };
    else give_page(pages, shared);
}

pi2_status pi2_kv_pages_hold(pi2_kv_pages *pages, uint32_t sequence, uint32_t first, uint32_t end) {
    page_table *table = &pages->tables[sequence];
    assert(end <= pages->tile_most * (uint64_t)PI2_KV_TILE && tiles_of(first) <= table->tile_count);
    assert(table->copy_count == 0);
    PI2_TRY(pi2_kv_pages_check(pages, sequence, first, end, &(uint32_t){ 0 }));
    for (uint32_t t = first / PI2_KV_TILE; t < tiles_of(end); t++) {
        if (t >= table->tile_count) {
            table->pages[t] = take_page(pages, table, t);
            table->tile_count = t + 1;
        } else if (pages->holders[table->pages[t]] > 1) {
            part_tile(pages, table, t, take_page(pages, table, t),
                      t * PI2_KV_TILE < first || (t + 1) * PI2_KV_TILE > end);
        }
    }
    return PI2_OK;
}

bool pi2_kv_pages_next_copy(pi2_kv_pages *pages, uint32_t sequence, uint32_t *from_out, uint32_t *to_out) {
    page_table *table = &pages->tables[sequence];
    if (table->copy_count == 0) return false;
    const page_copy copy = table->copies[--table->copy_count];
    *from_out = copy.from;
    *to_out = copy.to;
    give_page(pages, copy.from);
    return true;
}

void pi2_kv_pages_trim(pi2_kv_pages *pages, uint32_t sequence, uint32_t position) {
    page_table *table = &pages->tables[sequence];
    while (table->tile_count > tiles_of(position)) give_page(pages, table->pages[--table->tile_count]);
}

void pi2_kv_pages_share(pi2_kv_pages *pages, uint32_t from, uint32_t to, uint32_t positions) {
    const page_table *source = &pages->tables[from];
    page_table *target = &pages->tables[to];
    const uint32_t tiles = tiles_of(positions);
    assert(target->tile_count == 0 && tiles <= source->tile_count);
    memcpy(target->pages, source->pages, tiles * sizeof *target->pages);
    target->tile_count = tiles;
    for (uint32_t t = 0; t < tiles; t++) pages->holders[target->pages[t]]++;
}

/* ---- branches ---- */

uint32_t pi2_kv_pages_branch_wants(uint32_t first, uint32_t end) { return tiles_of(end) - first / PI2_KV_TILE; }

/* Of positions behind `end` there is nothing to keep: the tile that `first` is in is copied for those before it. */
pi2_status pi2_kv_pages_branch(pi2_kv_pages *pages, uint32_t from, uint32_t to, uint32_t first, uint32_t end) {
    page_table *table = &pages->tables[to];
    assert(table->copy_count == 0 && end <= pages->tile_most * (uint64_t)PI2_KV_TILE);
    const uint32_t wanted = pi2_kv_pages_branch_wants(first, end);
    if (wanted > pages->unused) return refuse(pages, wanted);
    pi2_kv_pages_share(pages, from, to, first);
    for (uint32_t t = first / PI2_KV_TILE; t < tiles_of(end); t++) {
        const uint32_t page = take_first_page(pages);
        if (t < table->tile_count) {
            part_tile(pages, table, t, page, true);
            continue;
        }
        table->pages[t] = page;
        table->tile_count = t + 1;
    }
    return PI2_OK;
}

void pi2_kv_pages_swap(pi2_kv_pages *pages, uint32_t a, uint32_t b) {
    const page_table table = pages->tables[a];
    assert(table.copy_count == 0 && pages->tables[b].copy_count == 0);
    pages->tables[a] = pages->tables[b];
    pages->tables[b] = table;
}
