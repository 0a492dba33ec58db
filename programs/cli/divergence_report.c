/* divergence_report.c: the names are those that llama-perplexity's users know, spelled out where there is room. */
#include "divergence_report.h"

#include <stdio.h>

#include "output.h"

static void print_line(const char *name, pi2_estimate estimate, int digits, const char *unit) {
    (void)printf("%-26s %12.*f +/- %.*f%s\n", name, digits, estimate.value, digits, estimate.error, unit);
}

static pi2_estimate percent(pi2_estimate share) { return (pi2_estimate){100 * share.value, 100 * share.error}; }

void pi2_cli_print_divergence(const pi2_divergence_summary *summary, const char *what) {
    (void)printf("%-26s %12llu (%s)\n", "tokens", (unsigned long long)summary->tokens, what);
    print_line("mean KL divergence", summary->divergence, 6, " nats");
    print_line("same top token", percent(summary->same_top), 3, " %");
    print_line("perplexity", summary->perplexity, 4, "");
    print_line("perplexity, reference", summary->reference_perplexity, 4, "");
    print_line("ratio of perplexities", summary->perplexity_ratio, 6, "");
    (void)printf("%-26s %12.2f %%\n", "correlation", 100 * summary->correlation);
    print_line("change of p, mean", percent(summary->change), 3, " %");
    print_line("change of p, RMS", percent(summary->change_rms), 3, " %");
    (void)printf("\n%-10s %14s %14s\n", "percentile", "KL divergence", "change of p");
    for (size_t i = 0; i < PI2_PERCENTILES; i++) {
        (void)printf("%8.1f %% %14.6f %12.3f %%\n", 100 * pi2_percentile(i), summary->divergences[i],
                     100 * summary->changes[i]);
    }
}

static void put(json_t *object, const char *name, pi2_estimate estimate) {
    char error[64];
    (void)snprintf(error, sizeof error, "%s_error", name);
    json_object_set_new(object, name, pi2_cli_json_number(estimate.value));
    json_object_set_new(object, error, pi2_cli_json_number(estimate.error));
}

static json_t *percentiles_json(const double values[PI2_PERCENTILES]) {
    json_t *object = json_object();
    for (size_t i = 0; i < PI2_PERCENTILES; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "%g", 100 * pi2_percentile(i));
        json_object_set_new(object, name, pi2_cli_json_number(values[i]));
    }
    return object;
}

void pi2_cli_divergence_json(const pi2_divergence_summary *summary, json_t *object) {
    json_object_set_new(object, "tokens", json_integer((json_int_t)summary->tokens));
    put(object, "kl_divergence", summary->divergence);
    put(object, "same_top", summary->same_top);
    put(object, "perplexity", summary->perplexity);
    put(object, "perplexity_reference", summary->reference_perplexity);
    put(object, "perplexity_ratio", summary->perplexity_ratio);
    json_object_set_new(object, "correlation", pi2_cli_json_number(summary->correlation));
    put(object, "p_change", summary->change);
    put(object, "p_change_rms", summary->change_rms);
    json_object_set_new(object, "kl_divergence_percentiles", percentiles_json(summary->divergences));
    json_object_set_new(object, "p_change_percentiles", percentiles_json(summary->changes));
}
