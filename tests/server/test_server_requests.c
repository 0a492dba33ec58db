/*
 * Goal:   requests of each API are read as they mean it, and what is wrong with one is named; the memory of a JSON text
 *         is bounded before it is parsed.
 * Method: bodies beside the conversation that templates get, or beside a part of the refusal; texts that take much
 *         memory, whose allocations are counted.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/conversation.h"
#include "server/exchange.h"
#include "server/responses_request.h"
#include "cli/json_bounds.h"
#include "cli/request_fields.h"

typedef bool reader(const json_t *body, pi2_conversation_json *out, pi2_request_fault *fault);

static bool read_responses(const json_t *body, pi2_conversation_json *out, pi2_request_fault *fault) {
    json_t *chat = pi2_responses_as_chat(body, fault);
    const bool is_read = chat && pi2_conversation_from_openai(chat, out, fault);
    json_decref(chat);
    return is_read;
}

static const struct conversation_example {
    reader *read;
    const char *body, *messages, *tools, *variables; /* messages NULL: `tools` is a part of the refusal */
} conversations[] = {
    {pi2_conversation_from_openai, "{'messages':[{'role':'user','content':'a'}]}", "[{'role':'user','content':'a'}]",
     NULL, NULL},
    {pi2_conversation_from_openai,
     "{'messages':[{'role':'developer','content':[{'type':'text','text':'a'},{'type':'text','text':'b'}]},"
     "{'role':'assistant','content':null,'tool_calls':[{'id':'1','type':'function','function':{'name':'f',"
     "'arguments':'{\\'x\\':1}'}}]}],'chat_template_kwargs':{'k':true},'reasoning_effort':'low'}",
     "[{'role':'system','content':'ab'},{'role':'assistant','content':'','tool_calls':[{'id':'1','type':'function',"
     "'function':{'name':'f','arguments':{'x':1}}}]}]", NULL, "{'k':true,'reasoning_effort':'low'}"},
    {pi2_conversation_from_openai,
     "{'messages':[{'role':'user','content':'a'}],'tools':[{'type':'function','function':{'name':'f'}}]}",
     "[{'role':'user','content':'a'}]", "[{'type':'function','function':{'name':'f'}}]", NULL},
    {pi2_conversation_from_openai,
     "{'messages':[{'role':'user','content':'a'}],'tools':[{'function':{'name':'f'}}],'tool_choice':'none'}",
     "[{'role':'user','content':'a'}]", NULL, NULL},
    {pi2_conversation_from_openai, "{'messages':[{'role':'assistant','tool_calls':[{'function':{'name':'f','arguments':"
     "'[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[['}}]}]}", NULL, "nested 65 levels", NULL},
    {pi2_conversation_from_openai, "{}", NULL, "'messages' must be an array", NULL},
    {pi2_conversation_from_openai, "{'messages':[]}", NULL, "one at least", NULL},
    {pi2_conversation_from_openai, "{'messages':[5]}", NULL, "message 0", NULL},
    {pi2_conversation_from_openai, "{'messages':[{'role':'user','content':5}]}", NULL, "content must be", NULL},
    {pi2_conversation_from_openai, "{'messages':[{'role':'user','content':[{'type':'image_url','image_url':{}}]}]}",
     NULL, "'image_url' is not supported", NULL},
    {pi2_conversation_from_openai, "{'messages':[{'role':'user'}],'tools':[{}]}", NULL, "tool 0", NULL},
    {pi2_conversation_from_openai, "{'messages':[{'role':'user'}],'tool_choice':'required'}", NULL, "no 'tools'", NULL},
    {pi2_conversation_from_openai, "{'messages':[{'role':'user'}],'tools':[{'function':{'name':'f'}}],"
     "'tool_choice':'x'}", NULL, "'tool_choice' can be", NULL},
    {pi2_conversation_from_openai, "{'messages':[{'role':'user','content':'a'}],'tools':[{'function':{'name':'f'}}],"
     "'tool_choice':{'type':'function','function':{'name':'f'}}}", "[{'role':'user','content':'a'}]",
     "[{'function':{'name':'f'}}]", NULL},
    {pi2_conversation_from_openai, "{'messages':[{'role':'user'}],'chat_template_kwargs':[]}", NULL,
     "must be an object", NULL},
    {pi2_conversation_from_anthropic,
     "{'system':[{'type':'text','text':'s'}],'messages':[{'role':'user','content':'q'},{'role':'assistant','content':"
     "[{'type':'thinking','thinking':'t'},{'type':'text','text':'a'},{'type':'tool_use','id':'1','name':'f','input':"
     "{'x':1}}]},{'role':'user','content':[{'type':'text','text':'and'},{'type':'tool_result','tool_use_id':'1',"
     "'content':[{'type':'text','text':'r'}]}]}],'tools':[{'name':'f','description':'d','input_schema':{}}],"
     "'thinking':{'type':'disabled'}}",
     "[{'role':'system','content':'s'},{'role':'user','content':'q'},{'role':'assistant','reasoning_content':'t',"
     "'content':'a','tool_calls':[{'id':'1','type':'function','function':{'name':'f','arguments':{'x':1}}}]},"
     "{'role':'tool','tool_call_id':'1','content':'r'},{'role':'user','content':'and'}]",
     "[{'type':'function','function':{'name':'f','description':'d','parameters':{}}}]", "{'enable_thinking':false}"},
    {pi2_conversation_from_anthropic, "{'messages':[{'role':'system','content':'q'}]}", NULL, "the role 'system'",
     NULL},
    {pi2_conversation_from_anthropic, "{'messages':[{'role':'user','content':'q'}],'tools':[{'type':'web_search'}]}",
     NULL, "'input_schema'", NULL},
    {pi2_conversation_from_anthropic, "{'messages':[{'role':'user','content':[{'type':'image','source':{}}]}]}", NULL,
     "'image' is not supported", NULL},
    {pi2_conversation_from_anthropic, "{'messages':[{'role':'user','content':[{'type':'tool_result','content':7}]}]}",
     NULL, "content must be", NULL},
    /* Thoughts in several parts are all handed on. */
    {pi2_conversation_from_anthropic,
     "{'messages':[{'role':'user','content':'q'},{'role':'assistant','content':[{'type':'thinking','thinking':'s'},"
     "{'type':'thinking','thinking':'t'},{'type':'text','text':'a'}]}]}",
     "[{'role':'user','content':'q'},{'role':'assistant','reasoning_content':'st','content':'a'}]", NULL, NULL},
    {read_responses,
     "{'input':[{'role':'user','content':'q'},{'type':'reasoning','summary':[{'type':'summary_text','text':'s'},"
     "{'type':'summary_text','text':'t'}]},{'type':'reasoning','content':[{'type':'reasoning_text','text':'u'}]},"
     "{'role':'assistant','content':'a'},{'type':'reasoning','content':[{'type':'reasoning_text','text':'v'}]},"
     "{'type':'function_call','call_id':'1','name':'f','arguments':'{}'}]}",
     "[{'role':'user','content':'q'},{'role':'assistant','reasoning_content':'stu','content':'a'},{'role':'assistant',"
     "'reasoning_content':'v','content':'','tool_calls':[{'id':'1','type':'function','function':{'name':'f',"
     "'arguments':{}}}]}]", NULL, NULL},
    {pi2_conversation_from_ollama, "{'messages':[{'role':'user','content':'q'}],'think':true}",
     "[{'role':'user','content':'q'}]", NULL, "{'enable_thinking':true}"},
    {pi2_conversation_from_ollama, "{'messages':[{'role':'user','content':'q','images':['x']}]}", NULL, "images", NULL},
};

/** JSON in which ' stands for ", and \' for \". */
static json_t *quoted(const char *text) {
    if (!text) return NULL;
    char *copy = strdup(text);
    assert_non_null(copy);
    for (char *at = copy; *at; at++) {
        if (*at == '\'') *at = '"';
    }
    json_error_t error;
    json_t *value = json_loads(copy, JSON_REJECT_DUPLICATES, &error);
    if (!value) fail_msg("%s: %s", text, error.text);
    free(copy);
    return value;
}

static void expect_equal(const char *body, const json_t *got, const char *wanted_text) {
    json_t *wanted = quoted(wanted_text);
    if ((got || wanted) && !json_equal(got, wanted)) {
        char *text = json_dumps(got, JSON_COMPACT | JSON_ENCODE_ANY);
        fail_msg("%s gives %s, not %s", body, text, wanted_text ? wanted_text : "nothing");
    }
    json_decref(wanted);
}

static void test_conversations(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof conversations / sizeof conversations[0]; i++) {
        const struct conversation_example *example = &conversations[i];
        pi2_conversation_json out = {.json_room = 1 << 20};
        pi2_request_fault fault = {0};
        json_t *body = quoted(example->body);
        const bool is_read = example->read(body, &out, &fault);
        if (is_read != (example->messages != NULL)) fail_msg("%s: %s", example->body, fault.text);
        if (is_read) {
            expect_equal(example->body, out.messages, example->messages);
            expect_equal(example->body, out.tools, example->tools);
            expect_equal(example->body, out.variables, example->variables);
            assert_int_equal(fault.status, 0);
        } else {
            assert_int_equal(fault.status, 400);
            if (!strstr(fault.text, example->tools)) fail_msg("%s: '%s'", example->body, fault.text);
        }
        pi2_conversation_json_free(&out);
        json_decref(body);
    }
}

/* All calls of a request share the room, and the body that they came in stays as it was. */
static void test_arguments_have_one_room(void **state) {
    (void)state;
    static const char call[] = "{'function':{'name':'f','arguments':'{\\'x\\':[0,0,0,0]}'}}";
    char text[512];
    (void)snprintf(text, sizeof text, "{'messages':[{'role':'assistant','tool_calls':[%s,%s]},"
                   "{'role':'assistant','tool_calls':[%s]}]}", call, call, call);
    json_t *body = quoted(text), *before = json_deep_copy(body);
    const size_t each = pi2_json_measure("{\"x\":[0,0,0,0]}", 15).memory;
    for (size_t room = 3 * each - 1; room <= 3 * each; room++) {
        pi2_conversation_json out = {.json_room = room};
        pi2_request_fault fault = {0};
        assert_int_equal(pi2_conversation_from_openai(body, &out, &fault), room == 3 * each);
        if (room < 3 * each) assert_non_null(strstr(fault.text, "arguments would take"));
        pi2_conversation_json_free(&out);
        assert_true(json_equal(body, before));
    }
    json_decref(before);
    json_decref(body);
}

static const struct { const char *body, *fault; } field_examples[] = {
    {"{'temperature':'hot'}", "'temperature' must be a number"},
    {"{'temperature':1e300}", "'temperature' is 1e+300"},
    {"{'top_p':1.5}", "'top_p'"},
    {"{'min_p':-0.1}", "'min_p'"},
    {"{'repeat_penalty':0}", "'repeat_penalty'"},
    {"{'top_k':99999999999}", "'top_k'"},
    {"{'top_k':1.5}", "whole number"},
    {"{'seed':'x'}", "'seed'"},
    {"{'max_tokens':-5}", "'max_tokens'"},
    {"{'max_tokens':1e18}", "whole number"},
    {"{'ignore_eos':1}", "true or false"},
    {"{'stop':5}", "'stop' must be"},
    {"{'stop':['a',5]}", "'stop' must be"},
    {"{'stop':['1','2','3','4','5','6','7','8','9','10','11','12','13','14','15','16','17']}", "more than 16"},
    {"{'n':2}", "'n' is 2"},
    {"{'logit_bias':{'5x':-100}}", "ids"},
    {"{'logit_bias':{'':1}}", "ids"},
    {"{'logit_bias':{'99999999999':1}}", "ids"},
    {"{'logit_bias':{'5':'-100'}}", "token 5"},
    {"{'logit_bias':{'5':true}}", "token 5"},
    {"{'logit_bias':[[5,1e7]]}", "token 5"},
    {"{'logit_bias':[['a',1]]}", "ids"},
    {"{'logit_bias':[[-1,1]]}", "ids"},
    {"{'logit_bias':[[5]]}", "pairs"},
    {"{'logit_bias':7}", "'logit_bias' must be"},
    {"{'mirostat':2}", "'mirostat'"},
    {"{'dry_multiplier':0.8}", "'dry_multiplier'"},
    {"{'typical_p':1.5}", "'typical_p'"},
    {"{'xtc_probability':-1}", "'xtc_probability'"},
};

/* What is asked for by any API's name is refused where it cannot be had. */
static void test_forms_are_refused(void **state) {
    (void)state;
    static const char *const bodies[] = {"{'grammar':'root ::= x'}", "{'json_schema':{}}", "{'format':'json'}",
                                         "{'response_format':{'type':'json_object'}}",
                                         "{'output_config':{'format':{'type':'json_schema'}}}"};
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        pi2_request_fault fault = {0};
        json_t *body = quoted(bodies[i]);
        assert_false(pi2_fields_of_text(body, &fault));
        assert_non_null(strstr(fault.text, "is not supported here"));
        json_decref(body);
    }
    pi2_request_fault fault = {0};
    json_t *body = quoted("{'response_format':{'type':'text'},'grammar':''}");
    assert_true(pi2_fields_of_text(body, &fault));
    json_decref(body);
}

static void test_bad_fields(void **state) {
    (void)state;
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    for (size_t i = 0; i < sizeof field_examples / sizeof field_examples[0]; i++) {
        pi2_request_fault fault = {0};
        pi2_job job = {0};
        pi2_job_init(&job, &sampling);
        json_t *body = quoted(field_examples[i].body);
        uint32_t choices;
        assert_false(pi2_field_choices(body, 1, &choices, &fault) && pi2_fields_unsupported(body, &fault) &&
                     pi2_fields_sampling(body, &job, &fault));
        if (!strstr(fault.text, field_examples[i].fault)) fail_msg("%s: '%s'", field_examples[i].body, fault.text);
        json_decref(body);
        pi2_job_free(&job);
    }
}

/* Both forms, in the place of the server's own. */
static void test_logit_biases(void **state) {
    (void)state;
    const pi2_logit_bias own[] = {{1, 1.0f}, {2, 2.0f}, {3, 3.0f}};
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    sampling.logit_biases = own;
    sampling.logit_bias_count = 3;
    static const char *const bodies[] = {"{'logit_bias':{'15043':-1.5,'7':-100}}",
                                         "{'logit_bias':[[15043,-1.5],[7,false]]}", "{'logit_bias':null}"};
    for (size_t i = 0; i < 3; i++) {
        pi2_request_fault fault = {0};
        pi2_job job = {0};
        pi2_job_init(&job, &sampling);
        json_t *body = quoted(bodies[i]);
        assert_true(pi2_fields_unsupported(body, &fault) && pi2_fields_sampling(body, &job, &fault));
        json_decref(body);
        assert_int_equal(job.sampling.logit_bias_count, i == 2 ? 3 : 2);
        const pi2_logit_bias *biases = job.sampling.logit_biases;
        for (uint32_t b = 0; b < 2 && i < 2; b++) {
            const bool is_first = biases[b].token == 15043; /* an object has no order */
            assert_true(is_first || biases[b].token == 7);
            assert_true(biases[b].bias == (is_first ? -1.5f : i == 0 ? -100.0f : -INFINITY));
        }
        pi2_job_free(&job);
    }
    pi2_request_fault fault = {0};
    pi2_job job = {0};
    pi2_job_init(&job, &sampling);
    json_t *body = json_object(), *many = json_array();
    for (int i = 0; i <= PI2_LOGIT_BIASES_MOST; i++) json_array_append_new(many, json_pack("[i, i]", i, 1));
    json_object_set_new(body, "logit_bias", many);
    assert_false(pi2_fields_sampling(body, &job, &fault));
    assert_non_null(strstr(fault.text, "1025"));
    json_decref(body);
    pi2_job_free(&job);
}

static void test_good_fields(void **state) {
    (void)state;
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    pi2_request_fault fault = {0};
    pi2_job job = {0};
    pi2_job_init(&job, &sampling);
    json_t *body = quoted("{'temperature':0.5,'top_k':-1,'top_p':0.25,'min_p':0.125,'seed':7,'repeat_penalty':1.5,"
                          "'repeat_last_n':-1,'presence_penalty':-1,'frequency_penalty':2,'max_tokens':12.0,'stop':"
                          "['x','','yy'],'stop_sequences':null,'ignore_eos':true,'n':1,'logit_bias':{},'echo':false,"
                          "'response_format':{'type':'text'},'grammar':'','typical_p':0.5,'top_n_sigma':2,"
                          "'xtc_probability':0.25,'xtc_threshold':0.125,'dynatemp_range':0.5,'dynatemp_exponent':2}");
    assert_true(pi2_fields_unsupported(body, &fault) && pi2_fields_sampling(body, &job, &fault));
    assert_true(job.sampling.typical_p == 0.5f && job.sampling.top_n_sigma == 2.0f);
    assert_true(job.sampling.xtc_probability == 0.25f && job.sampling.xtc_threshold == 0.125f);
    assert_true(job.sampling.dynamic_range == 0.5f && job.sampling.dynamic_exponent == 2.0f);
    assert_int_equal(job.sampling.logit_bias_count, 0);
    assert_true(job.sampling.temperature == 0.5f && job.sampling.top_k == 0 && job.sampling.top_p == 0.25f);
    assert_true(job.sampling.min_p == 0.125f && job.sampling.seed == 7 && job.sampling.repeat_penalty == 1.5f);
    assert_true(job.sampling.repeat_last_n == -1 && job.sampling.presence_penalty == -1.0f);
    assert_true(job.sampling.frequency_penalty == 2.0f && job.sampling.forbid_end_tokens);
    assert_int_equal(job.limit, 12);
    assert_int_equal(job.stop_words.count, 2); /* an empty one would end every answer */
    assert_string_equal(job.stop_words.items[1], "yy");
    json_decref(body);
    pi2_job_free(&job);
}

/* A client that left is noticed behind what it sent too much; one that is there is not taken for gone. */
static void test_left_clients(void **state) {
    (void)state;
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    for (size_t sent = 0; sent < 2; sent++) {
        for (size_t way = 0; way < 3; way++) { /* it stays, closes its half, closes all */
            int ends[2];
            pi2_job job = {0};
            assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
            pi2_job_init(&job, &sampling);
            job.socket = ends[0];
            assert_int_equal(write(ends[1], "x", sent), sent);
            assert_false(pi2_job_is_unwanted(&job));
            if (way == 1) assert_int_equal(shutdown(ends[1], SHUT_WR), 0);
            if (way == 2) (void)close(ends[1]);
            assert_int_equal(pi2_job_is_unwanted(&job), way > 0);
            if (way < 2) (void)close(ends[1]);
            (void)close(ends[0]);
            pi2_job_free(&job);
        }
    }
}

/* Whoever asks is told what is wrong with the request, not where this machine's files lie. */
static void test_own_failures_are_not_told(void **state) {
    (void)state;
    char line[256] = "";
    FILE *log = tmpfile();
    assert_non_null(log);
    pi2_cli_set_log(log);
    assert_string_equal(pi2_error_for_client(PI2_ERR_CONTEXT, "too long"), "too long");
    assert_null(strstr(pi2_error_for_client(PI2_ERR_IO, "folder/m.gguf: gone"), "m.gguf"));
    pi2_cli_set_log(NULL);
    rewind(log);
    assert_non_null(fgets(line, sizeof line, log));
    assert_non_null(strstr(line, "folder/m.gguf: gone"));
    assert_null(fgets(line, sizeof line, log));
    (void)fclose(log);
}

/* ---- memory ---- */

static size_t allocated, peak;

static void *count_malloc(size_t size) {
    size_t *block = malloc(size + 16);
    if (!block) return NULL;
    *block = size + 32; /* with what the allocator takes for itself */
    allocated += *block;
    if (allocated > peak) peak = allocated;
    return (char *)block + 16;
}

static void count_free(void *pointer) {
    if (!pointer) return;
    size_t *block = (size_t *)(void *)((char *)pointer - 16);
    allocated -= *block;
    free(block);
}

/** begin, `count` times `middle`, end; malloc'd. */
static char *repeated(const char *begin, const char *middle, size_t count, const char *end) {
    char *text = malloc(strlen(begin) + count * strlen(middle) + strlen(end) + 1);
    assert_non_null(text);
    char *at = text + sprintf(text, "%s", begin);
    for (size_t i = 0; i < count; i++) at += sprintf(at, "%s", middle);
    (void)sprintf(at, "%s", end);
    return text;
}

static void test_memory_is_bounded(void **state) {
    (void)state;
    static const struct { const char *begin, *middle, *end; } shapes[] = {
        {"[0", ",1", "]"}, {"[[]", ",[]", "]"}, {"[{}", ",{}", "]"}, {"[\"\"", ",\"\"", "]"},
        {"[\"", "abcd", "\"]"}, {"[\"", "\\u20ac", "\"]"}, {"[{}", ",{\"a\":1}", "]"},
        {"[[1]", ",[1,2,3,4,5,6,7,8,9]", "]"}, {"[1", ",1.5e3", "]"}};
    json_set_alloc_funcs(count_malloc, count_free);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        char *text = repeated(shapes[i].begin, shapes[i].middle, 5000, shapes[i].end);
        allocated = peak = 0;
        const pi2_json_bounds bounds = pi2_json_measure(text, strlen(text));
        json_t *value = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(value);
        if (peak > bounds.memory) {
            fail_msg("%s...: took %zu bytes, %zu expected", shapes[i].middle, peak, bounds.memory);
        }
        json_decref(value);
        assert_int_equal(allocated, 0);
        free(text);
    }
    json_set_alloc_funcs(malloc, free);
}

static void test_depth(void **state) {
    (void)state;
    char *text = repeated("", "[", 1000, "");
    assert_int_equal(pi2_json_measure(text, 1000).depth, 1000);
    free(text);
    assert_int_equal(pi2_json_measure("{\"[[[\\\"[[\":[{}]}", 17).depth, 3); /* in a text brackets are none */
    assert_int_equal(pi2_json_measure("]]]][", 5).depth, 1);
}

/* Adds as the scheduler does until the job is full; returns the bytes that were added. */
static size_t fill(pi2_job *job, const char *piece) {
    size_t added = 0;
    while (!pi2_job_is_full(job)) {
        assert_true(pi2_cli_text_add(&job->text, piece, strlen(piece)));
        added += strlen(piece);
        assert_true(added <= 2 * PI2_JOB_UNTAKEN_BYTES);
    }
    return added;
}

static void test_streams_are_held(void **state) {
    (void)state;
    static const char piece[] = "a\xe2\x82\xac";
    pi2_sampling sampling;
    pi2_sampling_init(&sampling);
    pi2_job job = {.is_streamed = true};
    pi2_job_init(&job, &sampling);
    char taken[1000];
    size_t added = 0, got = 0;
    for (int round = 0; round < 20; round++) { /* however much flows, no more lies there than may */
        added += fill(&job, piece);
        assert_true(job.text.capacity <= 4 * PI2_JOB_UNTAKEN_BYTES);
        while (round % 3 ? pi2_job_is_full(&job) : got < added) {
            const size_t length = pi2_job_take_text(&job, taken, sizeof taken);
            assert_true(length > 0 && length <= sizeof taken && ((unsigned char)taken[0] & 0xc0) != 0x80);
            for (size_t i = 0; i < length; i++) assert_int_equal(taken[i], piece[got++ % (sizeof piece - 1)]);
        }
    }
    job.wants_chances = true;
    job.top_count = 1;
    pi2_token_chance chances[2 * PI2_JOB_UNTAKEN_CHANCES], told[2 * PI2_JOB_UNTAKEN_CHANCES];
    for (int i = 0; i < 2 * PI2_JOB_UNTAKEN_CHANCES; i++) chances[i] = (pi2_token_chance){i, (float)-i};
    job.chances = chances;
    job.chance_count = PI2_JOB_UNTAKEN_CHANCES - 1;
    while (pi2_job_take_text(&job, taken, sizeof taken)) {}
    assert_false(pi2_job_is_full(&job));
    job.chance_count++;
    assert_true(pi2_job_is_full(&job));
    assert_int_equal(pi2_job_take_chances(&job, told, 10), 10);
    assert_false(pi2_job_is_full(&job));
    assert_int_equal(pi2_job_take_chances(&job, told + 20, 1000), PI2_JOB_UNTAKEN_CHANCES - 10);
    assert_memory_equal(told, chances, sizeof chances);
    assert_int_equal(job.chance_count, 0); /* what was told is forgotten */
    job.is_streamed = false;
    job.chance_count = PI2_JOB_UNTAKEN_CHANCES;
    assert_false(pi2_job_is_full(&job)); /* a whole answer is taken when it is done */
    job.chances = NULL;
    pi2_job_free(&job);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversations), cmocka_unit_test(test_arguments_have_one_room),
        cmocka_unit_test(test_left_clients), cmocka_unit_test(test_own_failures_are_not_told),
        cmocka_unit_test(test_bad_fields),
        cmocka_unit_test(test_forms_are_refused), cmocka_unit_test(test_logit_biases),
        cmocka_unit_test(test_good_fields),
        cmocka_unit_test(test_memory_is_bounded), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_streams_are_held)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
