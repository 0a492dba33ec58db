/* draft_report.c: guesses in lines and in JSON. */
#include "draft_report.h"

#include "output.h"

void pi2_cli_count_drafts(const pi2_session *session, pi2_cli_drafts *drafts_out) {
    *drafts_out = (pi2_cli_drafts){.count = 0};
    pi2_session_count_drafts(session, &drafts_out->all);
    drafts_out->count = pi2_session_count_drafters(session, drafts_out->drafters, PI2_DRAFTERS_MOST);
}

void pi2_cli_drafts_since(const pi2_cli_drafts *before, pi2_cli_drafts *drafts) {
    drafts->all.passes -= before->all.passes;
    drafts->all.guessed -= before->all.guessed;
    drafts->all.right -= before->all.right;
    for (size_t i = 0; i < drafts->count; i++) {
        pi2_drafter_counters *counters = &drafts->drafters[i];
        const pi2_drafter_counters *earlier = &before->drafters[i];
        counters->passes -= earlier->passes;
        counters->guessed -= earlier->guessed;
        counters->right -= earlier->right;
        counters->draft_ns -= earlier->draft_ns;
        counters->gained_ns -= earlier->gained_ns;
    }
}

double pi2_cli_tokens_per_pass(const pi2_cli_drafts *drafts) {
    return drafts->all.passes ? 1.0 + (double)drafts->all.right / (double)drafts->all.passes : 1.0;
}

double pi2_cli_drafting_seconds(const pi2_cli_drafts *drafts) {
    double seconds = 0;
    for (size_t i = 0; i < drafts->count; i++) seconds += (double)drafts->drafters[i].draft_ns / 1e9;
    return seconds;
}

/** "about 0.42 s gained", or lost. */
static const char *gain_text(int64_t gained_ns, char text[64]) {
    const double seconds = (double)gained_ns / 1e9;
    (void)snprintf(text, 64, "about %.2f s %s", seconds < 0 ? -seconds : seconds, seconds < 0 ? "lost" : "gained");
    return text;
}

void pi2_cli_print_drafts(const pi2_cli_drafts *drafts) {
    char gain[64];
    int64_t gained_ns = 0;
    for (size_t i = 0; i < drafts->count; i++) gained_ns += drafts->drafters[i].gained_ns;
    if (drafts->all.guessed == 0 && pi2_cli_drafting_seconds(drafts) <= 0) return;
    pi2_cli_note("guesses  %llu of %llu tokens guessed ahead were right: %.2f tokens a pass, %s",
                 (unsigned long long)drafts->all.right, (unsigned long long)drafts->all.guessed,
                 pi2_cli_tokens_per_pass(drafts), gain_text(gained_ns, gain));
    for (size_t i = 0; i < drafts->count; i++) {
        const pi2_drafter_counters *counters = &drafts->drafters[i];
        if (counters->draft_ns == 0) continue; /* it costs nothing: what is not told of others is its */
        pi2_cli_note("  %-6s %llu of %llu in %llu passes; guessing took %.2f s, %s", counters->name,
                     (unsigned long long)counters->right, (unsigned long long)counters->guessed,
                     (unsigned long long)counters->passes, (double)counters->draft_ns / 1e9,
                     gain_text(counters->gained_ns, gain));
    }
}

json_t *pi2_cli_drafters_json(const pi2_cli_drafts *drafts) {
    json_t *array = json_array();
    for (size_t i = 0; i < drafts->count; i++) {
        const pi2_drafter_counters *counters = &drafts->drafters[i];
        json_t *object = json_pack("{s:s, s:I, s:I, s:I, s:f, s:f}", "name", counters->name, "passes",
                                   (json_int_t)counters->passes, "guessed", (json_int_t)counters->guessed, "right",
                                   (json_int_t)counters->right, "draft_ms", (double)counters->draft_ns / 1e6,
                                   "gained_ms", (double)counters->gained_ns / 1e6);
        (void)json_array_append_new(array, object);
    }
    return array;
}
