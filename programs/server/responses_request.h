/* responses_request.h: a request of /v1/responses as one of /v1/chat/completions. */
#ifndef PI2_SERVER_RESPONSES_REQUEST_H
#define PI2_SERVER_RESPONSES_REQUEST_H

#include <jansson.h>

#include "cli/request_fields.h"

/** {messages, tools, tool_choice, ...}, new; NULL: a fault was noted: what names something that was kept, which nothing
 *  is here, and what is neither text nor a call. */
json_t *pi2_responses_as_chat(const json_t *body, pi2_request_fault *fault);

#endif
