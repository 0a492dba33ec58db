/* session_file.c: what lies in a saved session's file, and what must fit the engine that it is loaded into. */
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/fail.h"
#include "base/little_endian.h"
#include "engine/session_internal.h"
#include "powerinfer2/identity.h"

enum { PIECE_TOKENS = 256 };

static const pi2_model_shape *model_of(const pi2_session *session) {
    return &session->engine->run.source.model->shape;
}

size_t pi2_session_note_most(const pi2_session *session) {
    return (size_t)pi2_engine_conversation_bytes(session->engine->run.plan.memory.shape.context_tokens) + 65536;
}

/* ---- whose it is, and how long ---- */

static pi2_status add_count(void *user, void *bytes, size_t count) {
    (void)bytes;
    *(uint64_t *)user += count;
    return PI2_OK;
}

static pi2_status visit_layer(const pi2_session *session, uint32_t layer, const pi2_state_header *header,
                              pi2_state_visitor *visit, void *user) {
    const pi2_positions positions = { header->first, header->position, header->seen_only };
    return pi2_forward_visit_positions(session->engine->forward, session->sequence, layer, &positions, visit, user);
}

/* Bytes of a layer's section; 0: it has none. */
static uint64_t layer_bytes(const pi2_session *session, uint32_t layer, const pi2_state_header *header) {
    const pi2_positions positions = { header->first, header->position, header->seen_only };
    return pi2_forward_positions_bytes(session->engine->forward, layer, &positions);
}

static uint64_t body_bytes(const pi2_session *session, const pi2_state_header *header) {
    uint64_t bytes = header->position * (uint64_t)sizeof(uint32_t) + 8, recurrent = 8;
    if (header->note_bytes) bytes += header->note_bytes + (uint64_t)8;
    if (header->has_logits) bytes += header->vocabulary_size * (uint64_t)sizeof(float) + 8;
    for (uint32_t i = 0; i < model_of(session)->layer_count; i++) {
        const uint64_t layer = layer_bytes(session, i, header);
        if (layer) bytes += layer + 8;
    }
    (void)pi2_forward_visit_recurrent(session->engine->forward, session->sequence, PI2_STATES_LAST, add_count,
                                      &recurrent);
    if (header->state_position != PI2_NO_POSITION) bytes += recurrent;
    if (header->saved_position != PI2_NO_POSITION) bytes += recurrent;
    return bytes;
}

/* The header of states of this session up to a position, without a note, logits and recurrent states. What windows have
 * left behind is there as long as nothing has been written over it. */
static pi2_status describe(const pi2_session *session, uint32_t first, uint32_t position, pi2_state_header *header) {
    *header = (pi2_state_header){
        .states_hash = pi2_forward_hash_states(session->engine->forward), .first = first, .position = position,
        .state_position = PI2_NO_POSITION, .saved_position = PI2_NO_POSITION,
        .vocabulary_size = model_of(session)->vocabulary_size, .seen_only = session->kept_from > 0 };
    const char *arithmetic = pi2_engine_arithmetic(session->engine);
    memcpy(header->arithmetic, arithmetic, strlen(arithmetic));
    return pi2_engine_weights_hash(session->engine, &header->weights_hash);
}

pi2_status pi2_session_identity(const pi2_session *session, uint64_t *identity_out) {
    pi2_state_header header;
    uint8_t bytes[24 + PI2_STATE_ARITHMETIC_BYTES] = { 0 };
    PI2_TRY(describe(session, 0, 1, &header));
    pi2_store_le64(bytes, header.weights_hash);
    pi2_store_le64(bytes + 8, header.states_hash);
    pi2_store_le64(bytes + 16, PI2_STATE_VERSION);
    memcpy(bytes + 24, header.arithmetic, sizeof header.arithmetic);
    *identity_out = XXH3_64bits(bytes, sizeof bytes);
    return PI2_OK;
}

uint64_t pi2_session_page_bytes(const pi2_session *session, uint32_t first, uint32_t end) {
    const pi2_state_header header = { .first = first, .position = end, .saved_position = PI2_NO_POSITION,
                                      .state_position = session->is_recurrent ? end : PI2_NO_POSITION,
                                      .seen_only = session->kept_from > 0 };
    return PI2_STATE_HEADER_BYTES + body_bytes(session, &header);
}

static pi2_status check_whose(const pi2_session *session, const pi2_state_reader *reader) {
    const pi2_state_header *header = &reader->header;
    pi2_state_header own;
    PI2_TRY(describe(session, header->first, header->position, &own));
    if (header->weights_hash != own.weights_hash || header->vocabulary_size != own.vocabulary_size) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: this session was saved with another model than %s: load it with its "
                        "own", reader->path, session->engine->run.source.model_path);
    }
    if (strcmp(header->arithmetic, own.arithmetic) != 0) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: this session was computed with another arithmetic (%s) than this run "
                        "has (%s): give the options that it was made with", reader->path, header->arithmetic,
                        own.arithmetic);
    }
    if (header->states_hash != own.states_hash) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: another version of this program, which lays out states in another "
                        "way, has saved this session: make it anew", reader->path);
    }
    return PI2_OK;
}

/* What only these numbers can be, with this model. */
static pi2_status check_numbers(const pi2_session *session, const pi2_state_reader *reader) {
    const pi2_state_header *header = &reader->header;
    const uint32_t context = session->engine->run.plan.memory.shape.context_tokens;
    if (header->position > context) {
        return pi2_fail(PI2_ERR_CONTEXT, "%s: the saved session has %u tokens, and the context holds %u: give a longer "
                        "context (-c)", reader->path, header->position, context);
    }
    const bool has_states = header->state_position != PI2_NO_POSITION || header->saved_position != PI2_NO_POSITION;
    const uint64_t bytes = body_bytes(session, header);
    if (bytes == header->body_bytes && (session->is_recurrent || !has_states)) return PI2_OK;
    return pi2_fail(PI2_ERR_FORMAT, "%s: the saved session has %llu bytes behind its header, and %u tokens of this "
                    "model have %llu: it is damaged", reader->path, (unsigned long long)header->body_bytes,
                    header->position, (unsigned long long)bytes);
}

static pi2_status check_cancelled(const pi2_session *session) {
    const pi2_callbacks *callbacks = &session->engine->run.options.callbacks;
    if (!callbacks->cancelled || !callbacks->cancelled(callbacks->user)) return PI2_OK;
    return pi2_fail(PI2_ERR_INTERRUPTED, "interrupted");
}

/* ---- writing ---- */

static pi2_status put_part(void *user, void *bytes, size_t count) { return pi2_state_writer_put(user, bytes, count); }

static pi2_status put_tokens(pi2_state_writer *writer, const int32_t *tokens, uint32_t count) {
    uint8_t piece[PIECE_TOKENS * sizeof(uint32_t)];
    for (uint32_t done = 0; done < count;) {
        const uint32_t some = count - done < PIECE_TOKENS ? count - done : PIECE_TOKENS;
        for (uint32_t i = 0; i < some; i++) pi2_store_le32(piece + sizeof(uint32_t) * i, (uint32_t)tokens[done + i]);
        PI2_TRY(pi2_state_writer_put(writer, piece, some * sizeof(uint32_t)));
        done += some;
    }
    pi2_state_writer_end(writer);
    return PI2_OK;
}

static pi2_status put_section(pi2_state_writer *writer, const void *bytes, size_t count) {
    PI2_TRY(pi2_state_writer_put(writer, bytes, count));
    pi2_state_writer_end(writer);
    return PI2_OK;
}

static pi2_status put_recurrent(pi2_state_writer *writer, const pi2_session *session, pi2_kept_states which) {
    PI2_TRY(pi2_forward_visit_recurrent(session->engine->forward, session->sequence, which, put_part, writer));
    pi2_state_writer_end(writer);
    return PI2_OK;
}

static pi2_status put_body(pi2_state_writer *writer, const pi2_session *session, const pi2_state_header *header,
                           const char *note) {
    PI2_TRY(put_tokens(writer, session->timeline, header->position));
    if (header->note_bytes) PI2_TRY(put_section(writer, note, header->note_bytes));
    if (header->has_logits) {
        PI2_TRY(put_section(writer, pi2_session_logits_at(session, session->logits_count - 1),
                            header->vocabulary_size * sizeof(float)));
    }
    for (uint32_t i = 0; i < model_of(session)->layer_count; i++) {
        if (layer_bytes(session, i, header) == 0) continue;
        PI2_TRY(check_cancelled(session));
        PI2_TRY(visit_layer(session, i, header, put_part, writer));
        pi2_state_writer_end(writer);
    }
    /* Behind guesses that are not known to be right the last states are those of no position that is saved. */
    const bool is_ahead = header->state_position != session->state_position;
    if (header->state_position != PI2_NO_POSITION) {
        PI2_TRY(put_recurrent(writer, session, is_ahead ? PI2_STATES_MARKED : PI2_STATES_LAST));
    }
    if (header->saved_position != PI2_NO_POSITION) PI2_TRY(put_recurrent(writer, session, PI2_STATES_SAVED));
    return PI2_OK;
}

static pi2_status write_file(const pi2_session *session, const char *path, pi2_state_header *header, const char *note) {
    pi2_state_writer writer;
    header->body_bytes = body_bytes(session, header);
    PI2_TRY(pi2_state_writer_open(&writer, path, header));
    return pi2_state_writer_close(&writer, put_body(&writer, session, header, note));
}

static pi2_status save(pi2_session *session, const char *path, const char *note, size_t note_length) {
    pi2_state_header header;
    if (session->position == 0) {
        return pi2_fail(PI2_ERR_INVALID, "the session has no tokens yet: there is nothing to save");
    }
    if (note_length > pi2_session_note_most(session)) {
        return pi2_fail(PI2_ERR_INVALID, "a note of %zu bytes is too long: there may be %zu", note_length,
                        pi2_session_note_most(session));
    }
    if (session->kept_from > session->position) PI2_TRY(pi2_session_make_states(session));
    PI2_TRY(describe(session, 0, session->position, &header));
    header.note_bytes = (uint32_t)note_length;
    header.has_logits = session->logits_count > 0;
    if (session->is_recurrent) {
        const bool is_ahead = session->state_position != PI2_NO_POSITION && session->state_position > session->position;
        header.state_position = is_ahead ? session->marked_position : session->state_position;
        header.saved_position = session->saved_position;
    }
    return write_file(session, path, &header, note);
}

pi2_status pi2_session_save(pi2_session *session, const char *path, const char *note, size_t note_length) {
    pi2_engine_take_turn(session->engine);
    const pi2_status status = save(session, path, note, note ? note_length : 0);
    pi2_engine_end_turn(session->engine);
    return status;
}

pi2_status pi2_session_write_page(const pi2_session *session, const char *path, uint32_t first, uint32_t end) {
    pi2_state_header header;
    PI2_TRY(describe(session, first, end, &header));
    if (session->is_recurrent) header.state_position = end;
    return write_file(session, path, &header, NULL);
}

/* ---- reading ---- */

static pi2_status get_part(void *user, void *bytes, size_t count) { return pi2_state_reader_get(user, bytes, count); }

/* tokens: taken over, where `is_wanted` compared. */
static pi2_status get_tokens(pi2_state_reader *reader, int32_t *tokens_out, const int32_t *wanted) {
    uint8_t piece[PIECE_TOKENS * sizeof(uint32_t)];
    const pi2_state_header *header = &reader->header;
    for (uint32_t done = 0; done < header->position;) {
        const uint32_t left = header->position - done, some = left < PIECE_TOKENS ? left : PIECE_TOKENS;
        const uint64_t at = reader->at;
        PI2_TRY(pi2_state_reader_get(reader, piece, some * sizeof(uint32_t)));
        for (uint32_t i = 0; i < some; i++) {
            const uint32_t token = pi2_load_le32(piece + sizeof(uint32_t) * i);
            if (token >= header->vocabulary_size || (wanted && (int32_t)token != wanted[done + i])) {
                return pi2_fail(PI2_ERR_FORMAT, "%s: token %u at byte %llu is not one %s: the file is damaged",
                                reader->path, token, (unsigned long long)(at + sizeof(uint32_t) * i),
                                wanted ? "that belongs there" : "of the vocabulary");
            }
            if (tokens_out) tokens_out[done + i] = (int32_t)token;
        }
        done += some;
    }
    return pi2_state_reader_end(reader, "tokens");
}

static pi2_status get_layers(pi2_state_reader *reader, const pi2_session *session) {
    const pi2_state_header *header = &reader->header;
    PI2_TRY(pi2_session_hold(session, header->first, header->position));
    for (uint32_t i = 0; i < model_of(session)->layer_count; i++) {
        char what[48];
        if (layer_bytes(session, i, header) == 0) continue;
        PI2_TRY(check_cancelled(session));
        PI2_TRY(visit_layer(session, i, header, get_part, reader));
        (void)snprintf(what, sizeof what, "keys and values of layer %u", i);
        PI2_TRY(pi2_state_reader_end(reader, what));
    }
    return PI2_OK;
}

static pi2_status get_recurrent(pi2_state_reader *reader, const pi2_session *session, pi2_kept_states which) {
    PI2_TRY(pi2_forward_visit_recurrent(session->engine->forward, session->sequence, which, get_part, reader));
    return pi2_state_reader_end(reader, which == PI2_STATES_SAVED ? "saved recurrent states" : "recurrent states");
}

static pi2_status get_note(pi2_state_reader *reader, char **note_out) {
    const size_t bytes = reader->header.note_bytes;
    *note_out = bytes ? malloc(bytes + 1) : NULL;
    if (bytes == 0) return PI2_OK;
    if (!*note_out) return pi2_fail(PI2_ERR_MEMORY, "no memory for a note of %zu bytes", bytes);
    (*note_out)[bytes] = '\0';
    PI2_TRY(pi2_state_reader_get(reader, *note_out, bytes));
    return pi2_state_reader_end(reader, "the note's bytes");
}

/* Logits lie where a pass of this session would leave them, or in the sequence's own room. */
static pi2_status get_logits(pi2_state_reader *reader, pi2_session *session) {
    float *kept = pi2_forward_kept_logits(session->engine->forward, session->sequence);
    session->logits_kept = kept != NULL;
    session->logits_first = 0;
    session->logits_count = 1;
    float *logits = pi2_session_logits_at(session, 0);
    session->logits_count = 0;
    PI2_TRY(pi2_state_reader_get(reader, logits, reader->header.vocabulary_size * sizeof *logits));
    return pi2_state_reader_end(reader, "logits");
}

/* Of nothing: what a failure leaves, and what is filled. */
static void empty(pi2_session *session) {
    pi2_session_cut(session, 0);
    pi2_detokenizer_reset(&session->detokenizer, false);
    session->state_position = session->saved_position = session->marked_position = PI2_NO_POSITION;
}

static pi2_status get_body(pi2_state_reader *reader, pi2_session *session, char **note_out) {
    const pi2_state_header *header = &reader->header;
    PI2_TRY(get_tokens(reader, session->timeline, NULL));
    PI2_TRY(get_note(reader, note_out));
    if (header->has_logits) PI2_TRY(get_logits(reader, session));
    PI2_TRY(get_layers(reader, session));
    if (header->state_position != PI2_NO_POSITION) PI2_TRY(get_recurrent(reader, session, PI2_STATES_LAST));
    if (header->saved_position != PI2_NO_POSITION) PI2_TRY(get_recurrent(reader, session, PI2_STATES_SAVED));
    session->position = header->position;
    session->kept_from = pi2_forward_least_return(session->engine->forward, header->position);
    if (header->seen_only) pi2_session_keep_from(session, header->position);
    session->state_position = header->state_position;
    session->saved_position = session->saved_at = header->saved_position;
    session->logits_count = header->has_logits;
    session->is_loaded = true;
    if (session->drafting) pi2_drafting_push(session->drafting, session->timeline, session->position);
    return PI2_OK;
}

static pi2_status load(pi2_session *session, pi2_state_reader *reader, const char *path, char **note_out) {
    const pi2_state_header *header = &reader->header;
    PI2_TRY(pi2_state_reader_open(reader, path));
    PI2_TRY(check_whose(session, reader));
    PI2_TRY(check_numbers(session, reader));
    if (header->first != 0) {
        return pi2_fail(PI2_ERR_UNSUPPORTED, "%s: this is a page of a prompt cache, not a saved session", path);
    }
    if (header->note_bytes > pi2_session_note_most(session)) {
        return pi2_fail(PI2_ERR_CONTEXT, "%s: the session was saved with a note of %u bytes, and there is room for "
                        "%zu: give a longer context (-c)", path, header->note_bytes, pi2_session_note_most(session));
    }
    empty(session);
    const pi2_status status = get_body(reader, session, note_out);
    if (status != PI2_OK) empty(session);
    return status;
}

pi2_status pi2_session_load(pi2_session *session, const char *path, char **note_out, size_t *note_length_out) {
    pi2_state_reader reader;
    char *note = NULL;
    pi2_engine_take_turn(session->engine);
    const pi2_status status = load(session, &reader, path, &note);
    pi2_engine_end_turn(session->engine);
    if (note_length_out) *note_length_out = status == PI2_OK ? reader.header.note_bytes : 0;
    pi2_state_reader_close(&reader);
    if (status != PI2_OK || !note_out) {
        free(note);
        note = NULL;
    }
    if (note_out) *note_out = note;
    return status;
}

static pi2_status read_page(pi2_session *session, pi2_state_reader *reader, const char *path, const int32_t *tokens,
                            uint32_t first, uint32_t end, bool with_states) {
    const pi2_state_header *header = &reader->header;
    PI2_TRY(pi2_state_reader_open(reader, path));
    PI2_TRY(check_whose(session, reader));
    if (header->first != first || header->position != end || header->note_bytes || header->has_logits ||
        header->state_position != (session->is_recurrent ? end : PI2_NO_POSITION) ||
        header->saved_position != PI2_NO_POSITION) {
        return pi2_fail(PI2_ERR_FORMAT, "%s: this page of the prompt cache is not that of the tokens from %u to %u: it "
                        "is damaged", path, first, end);
    }
    PI2_TRY(check_numbers(session, reader));
    PI2_TRY(get_tokens(reader, NULL, tokens));
    const uint32_t least = pi2_forward_least_return(session->engine->forward, end);
    if (session->kept_from < least) session->kept_from = least; /* what is damaged is written, too */
    PI2_TRY(get_layers(reader, session));
    if (header->seen_only && session->kept_from != PI2_NO_POSITION) pi2_session_keep_from(session, end);
    return with_states && session->is_recurrent ? get_recurrent(reader, session, PI2_STATES_LAST) : PI2_OK;
}

pi2_status pi2_session_read_page(pi2_session *session, const char *path, const int32_t *tokens, uint32_t first,
                                 uint32_t end, bool with_states) {
    pi2_state_reader reader;
    session->state_position = PI2_NO_POSITION;
    const pi2_status status = read_page(session, &reader, path, tokens, first, end, with_states);
    pi2_state_reader_close(&reader);
    if (status != PI2_OK) {
        pi2_kv_pages_trim(pi2_forward_pages(session->engine->forward), session->sequence, session->position);
        return status;
    }
    memcpy(session->timeline + first, tokens + first, (end - first) * sizeof *tokens);
    if (session->drafting) pi2_drafting_push(session->drafting, tokens + first, end - first);
    session->position = end;
    if (with_states) session->state_position = end;
    return PI2_OK;
}
