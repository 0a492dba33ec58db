/* conversation.h: messages and tools of a request, in the one form that chat templates take: OpenAI's. */
#ifndef PI2_SERVER_CONVERSATION_H
#define PI2_SERVER_CONVERSATION_H

#include <jansson.h>
#include <stdbool.h>

#include "cli/request_fields.h"

/** New references; tools NULL: none. Messages may share parts with the request's body, which stays as it is. */
typedef struct pi2_conversation_json {
    size_t json_room; /* set before: bytes that JSON within the request's texts may take beside the body */
    json_t *messages, *tools;
    json_t *variables; /* of the request, an object; NULL: none */
    bool demands_call, wants_one_call; /* "tool_choice" demands one; no two in one answer */
    const char *tool_name; /* of the tool that is demanded, borrowed from the request; NULL: any */
} pi2_conversation_json;
void pi2_conversation_json_free(pi2_conversation_json *conversation);

/** Each reads a request's body. Content in parts becomes one text; what is no text is refused by its name. */
bool pi2_conversation_from_openai(const json_t *body, pi2_conversation_json *out, pi2_request_fault *fault);
bool pi2_conversation_from_anthropic(const json_t *body, pi2_conversation_json *out, pi2_request_fault *fault);
bool pi2_conversation_from_ollama(const json_t *body, pi2_conversation_json *out, pi2_request_fault *fault);

/** Adds a text to what an assistant's message has thought before: parts, which become one text as those of content. */
bool pi2_conversation_add_thought(json_t *message, json_t *text);

#endif
