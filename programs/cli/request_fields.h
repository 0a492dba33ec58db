/* request_fields.h: members of a request, by name and with their bounds; null counts as absent. */
#ifndef PI2_CLI_REQUEST_FIELDS_H
#define PI2_CLI_REQUEST_FIELDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "job.h"
#include "output.h"

/** What is wrong with a request. */
typedef struct pi2_request_fault {
    unsigned status;  /* of HTTP; 0: nothing is wrong */
    const char *type; /* "invalid_request_error" */
    size_t prompt_tokens, context_tokens; /* of a prompt that is too long */
    char text[512];
} pi2_request_fault;
/** Notes the fault with status 400; returns false. */
bool pi2_fault(pi2_request_fault *fault, const char *format, ...) PI2_CLI_PRINTF(2, 3);

/** Each leaves the value alone where the member is absent; false: it is of another type, or out of bounds. */
bool pi2_field_number(const json_t *object, const char *name, double least, double most, double *value,
                      pi2_request_fault *fault);
bool pi2_field_integer(const json_t *object, const char *name, int64_t least, int64_t most, int64_t *value,
                       pi2_request_fault *fault);
bool pi2_field_flag(const json_t *object, const char *name, bool *value, pi2_request_fault *fault);
/** Borrowed text; *value as it is where absent. */
bool pi2_field_text(const json_t *object, const char *name, const char **value, pi2_request_fault *fault);
/** A text or an array of texts, as stop words. */
bool pi2_field_stops(const json_t *object, const char *name, pi2_job *job, pi2_request_fault *fault);
/** True when a member is there and neither null, false, 0, "" nor empty. */
bool pi2_field_is_set(const json_t *object, const char *name);

/** Sampling and length, by the names of OpenAI's, llama.cpp's, Anthropic's and Ollama's APIs. */
bool pi2_fields_sampling(const json_t *object, pi2_job *job, pi2_request_fault *fault);
/** Members that would change the answer and that this server cannot do are refused, by name. */
bool pi2_fields_unsupported(const json_t *object, pi2_request_fault *fault);
/** The same of the names by which APIs ask for more than a text: a form, tools, chances, variables of the template. */
bool pi2_fields_of_text(const json_t *object, pi2_request_fault *fault);
/** How many answers a request asks for ("n"), 1 where it does not say; `most` at most. best_of is not chosen from. */
bool pi2_field_choices(const json_t *object, uint32_t most, uint32_t *count, pi2_request_fault *fault);

#endif
