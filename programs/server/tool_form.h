/* tool_form.h: calls of tools that a request demands, as a grammar. */
#ifndef PI2_SERVER_TOOL_FORM_H
#define PI2_SERVER_TOOL_FORM_H

#include "answering.h"
#include "conversation.h"

/**
 * The grammar of one call or several, of the tools that may be called, in the form in which the model's chat template
 * writes calls (JSON where that is no form of JSON); kept in the reply, for pi2_answer_form_take(). Called under the
 * server's mutex for text. thinks: the prompt has begun a thought, behind which the calls come.
 */
bool pi2_tool_form_take(pi2_reply *reply, const pi2_conversation_json *conversation, pi2_request_fault *fault);

#endif
