/* prompt_request.h: the prompt of a request as tokens. Called under the server's mutex for text. */
#ifndef PI2_SERVER_PROMPT_REQUEST_H
#define PI2_SERVER_PROMPT_REQUEST_H

#include "answering.h"
#include "conversation.h"

/** The server's own variables of the template, over which the request's go, as JSON text that the caller frees; "":
 *  none; NULL: a fault was noted. */
char *pi2_prompt_variables(const pi2_exchange *exchange, const json_t *variables, pi2_request_fault *fault);
/** Of a conversation, through the chat template. text_out: what the template wrote, malloc'd. tokens_out: NULL: none
 *  are wanted. */
bool pi2_prompt_of_conversation(pi2_exchange *exchange, const pi2_conversation_json *conversation, char **text_out,
                                size_t *length_out, int32_t **tokens_out, size_t *count_out, pi2_request_fault *fault);
/** Bytes that the texts of one request may have: as a conversation's. */
uint64_t pi2_prompt_room(const pi2_exchange *exchange);
/** Of a text, or an array of texts and token ids, whose texts' bytes are taken from the room. */
bool pi2_prompt_of_value(pi2_exchange *exchange, const json_t *value, bool add_special, bool parse_special,
                         uint64_t *room, int32_t **tokens_out, size_t *count_out, pi2_request_fault *fault);

#endif
