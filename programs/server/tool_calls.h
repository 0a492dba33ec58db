/* tool_calls.h: the calls that a model wrote, in the forms of several families. */
#ifndef PI2_SERVER_TOOL_CALLS_H
#define PI2_SERVER_TOOL_CALLS_H

#include "answer_parser.h"

/**
 * Of the tools that a request offers, in OpenAI's form, what reading calls needs: {tool: {parameter: true}} with the
 * parameters that are no texts; of tools with the same name the first. An answer keeps it while it waits and grows,
 * and schemas may be long. NULL: no memory.
 */
json_t *pi2_tool_types(const json_t *tools);
/** Whether this is the JSON object of a call's arguments, within bounds. */
bool pi2_tool_arguments_are_good(const char *text, size_t length);
/**
 * Reads what lies between a call's marks: JSON with "name" and "arguments" or "parameters", one, a list, or several
 * behind each other (Hermes, Qwen, Mistral, Llama 3); name[ARGS]{...} (Mistral); <function=name><parameter=key>value
 * (Qwen3-Coder) and its kin (MiniMax, GLM), whose values get their types from pi2_tool_types; Kimi's; and the forms of
 * tool_call_texts.h. Every call goes to the taker, unless all the text is not made of calls: false then, and nothing
 * was taken. is_ended: the mark behind it was there, so that the name of a tool alone is a call. *taken_out: what the
 * taker said.
 */
bool pi2_tool_calls_read(const char *text, size_t length, bool is_ended, const json_t *types, pi2_part_taker *taker,
                         void *user, bool *taken_out);

#endif
