/*
 * sparsity_plot.c: how sparse a model is, as commands and data for gnuplot in one file, and drawn where gnuplot is
 * installed. The commands write the picture to their standard output: so it is this program that gives it its place.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fail.h"
#include "base/output_file.h"
#include "powerinfer2/sparsity.h"

extern char **environ;

enum { PIECE_BYTES = 16384, NOT_FOUND = 127 };

static const char first_line[] = "# powerinfer2: neurons";
static const char remark[] = "<!-- powerinfer2: neurons -->\n";
static const double rank_shares[PI2_SPARSITY_RANKS] = PI2_SPARSITY_RANK_SHARES;
static const int batch_tokens[PI2_SPARSITY_BATCHES] = PI2_SPARSITY_BATCH_TOKENS;

/* ---- places ---- */

static bool recognises_commands(const char *path, const uint8_t *head, size_t count) {
    (void)path;
    return pi2_output_head_is(head, count, first_line);
}

/** The remark stands behind the first line, which is the format's own. */
static bool recognises_picture(const char *path, const uint8_t *head, size_t count) {
    const uint8_t *line_end = memchr(head, '\n', count);
    (void)path;
    if (!line_end) return false;
    const size_t begin = (size_t)(line_end + 1 - head);
    return pi2_output_head_is(head + begin, count - begin, remark);
}

static const pi2_output_kind commands_kind = { .what = "commands for a plot of neurons",
                                               .recognises = recognises_commands };
static const pi2_output_kind picture_kind = { .what = "a plot of neurons", .recognises = recognises_picture };

typedef struct plot_paths {
    char commands[PI2_OUTPUT_PATH_BYTES], picture[PI2_OUTPUT_PATH_BYTES];
} plot_paths;

static pi2_status name_files(const char *name, plot_paths *paths) {
    const int length = snprintf(paths->commands, sizeof paths->commands, "%s.gnuplot", name);
    if (name[0] == '\0' || length < 0 || (size_t)length >= sizeof paths->commands) {
        return pi2_fail(PI2_ERR_INVALID, "'%.64s': no name for a plot: it is too long, or empty", name);
    }
    (void)snprintf(paths->picture, sizeof paths->picture, "%s.svg", name);
    return PI2_OK;
}

pi2_status pi2_sparsity_check_plot(const char *name, const char *const *inputs) {
    plot_paths paths;
    PI2_TRY(name_files(name, &paths));
    const pi2_output_request commands = { .path = paths.commands, .kind = &commands_kind, .inputs = inputs };
    const pi2_output_request picture = { .path = paths.picture, .kind = &picture_kind, .inputs = inputs };
    PI2_TRY(pi2_output_check_ahead(&commands));
    PI2_TRY(pi2_output_check_ahead(&picture));
    for (size_t i = 0; inputs && inputs[i]; i++) { /* which may be an output that is not there yet */
        if (!pi2_output_is_same(paths.commands, inputs[i]) && !pi2_output_is_same(paths.picture, inputs[i])) continue;
        return pi2_fail(PI2_ERR_INVALID, "%s would be a file of the plot %s too: name another", inputs[i], name);
    }
    return PI2_OK;
}

/* ---- commands and data ---- */

/** A line of the mean, the least and the most of the layers' shares of a rank. */
static void print_rank(pi2_output_file *file, const pi2_sparsity *sparsity, int rank) {
    double least = 1.0, most = 0.0, least_magnitude = 1.0, most_magnitude = 0.0;
    for (uint32_t i = 0; i < sparsity->layer_count; i++) {
        const pi2_layer_sparsity *layer = &sparsity->layers[i];
        least = fmin(least, layer->by_rank[rank]);
        most = fmax(most, layer->by_rank[rank]);
        least_magnitude = fmin(least_magnitude, layer->magnitude_by_rank[rank]);
        most_magnitude = fmax(most_magnitude, layer->magnitude_by_rank[rank]);
    }
    pi2_output_file_print(file, "%g %.4f %.4f %.4f %.4f %.4f %.4f\n", 100.0 * rank_shares[rank],
                          100.0 * sparsity->mean.by_rank[rank], 100.0 * least, 100.0 * most,
                          100.0 * sparsity->mean.magnitude_by_rank[rank], 100.0 * least_magnitude,
                          100.0 * most_magnitude);
}

static void print_data(pi2_output_file *file, const pi2_sparsity *sparsity) {
    pi2_output_file_print(file, "# neurons by rank, %%; of the firings: mean, least, most of the layers; the same of "
                          "the magnitude\n$by_rank << EOD\n0 0 0 0 0 0 0\n");
    for (int i = 0; i < PI2_SPARSITY_RANKS; i++) print_rank(file, sparsity, i);
    pi2_output_file_print(file, "100 100 100 100 100 100 100\nEOD\n# layer; %% of zeros, of what is zero in 8 bits, of "
                          "zero tiles, of zero blocks; repetition\n$layers << EOD\n");
    for (uint32_t i = 0; i < sparsity->layer_count; i++) {
        const pi2_layer_sparsity *layer = &sparsity->layers[i];
        pi2_output_file_print(file, "%u %.4f %.4f %.4f %.4f %.4f\n", (unsigned)i, 100.0 * layer->zeros,
                              100.0 * layer->rounded_zeros, 100.0 * layer->zero_tiles, 100.0 * layer->zero_blocks,
                              100.0 * layer->repeat);
    }
    pi2_output_file_print(file, "EOD\n# tokens together; %% of the neurons that fire\n$batches << EOD\n");
    for (int i = 0; i < PI2_SPARSITY_BATCHES; i++) {
        if (isnan(sparsity->mean.in_batch[i])) continue; /* no text has so many tokens */
        pi2_output_file_print(file, "%d %.4f\n", batch_tokens[i], 100.0 * sparsity->mean.in_batch[i]);
    }
    pi2_output_file_print(file, "EOD\n");
}

static const char commands[] =
    "set terminal svg size 1080,760 font 'sans,12' background rgb 'white'\n"
    "set multiplot layout 2,2\nset border 3\nset xtics nomirror\nset ytics nomirror\n"
    "set grid ytics linecolor rgb '#dddddd'\nset yrange [0:100]\nset format y '%g %%'\nset format x '%g %%'\n"
    "set style line 1 linecolor rgb '#1560bd' linewidth 2.5\nset style line 2 linecolor rgb '#d1601e' linewidth 2.5\n"
    "set style line 3 linecolor rgb '#2e8b57' linewidth 2\nset style line 4 linecolor rgb '#666666' linewidth 2\n"
    "set style fill transparent solid 0.15 noborder\n"
    "set title 'Cumulative activation by rank'\nset xlabel 'neurons, those with most first'\nset xrange [0:100]\n"
    "set key bottom right\n"
    "plot $by_rank using 1:3:4 with filledcurves linecolor rgb '#1560bd' notitle, \\\n"
    "     $by_rank using 1:2 with lines linestyle 1 title 'firings (band: layers)', \\\n"
    "     $by_rank using 1:5 with lines linestyle 2 title 'magnitude'\n"
    "set format x '%g'\nset xlabel 'layer'\nset autoscale x\nset offsets 0.5,0.5,0,0\n"
    "set title 'Sparsity by layer'\nset key right center\n"
    "plot $layers using 1:2 with linespoints linestyle 1 title 'exactly zero', \\\n"
    "     $layers using 1:3 with linespoints linestyle 2 title 'zero in 8 bits', \\\n"
    "     $layers using 1:4 with linespoints linestyle 3 title 'tiles of 16', \\\n"
    "     $layers using 1:5 with linespoints linestyle 4 title 'blocks of 32'\n"
    "unset key\nset title 'Active neurons that the token before had active too'\n"
    "plot $layers using 1:6 with linespoints linestyle 1\n"
    "set title 'Neurons that fire in at least one of so many tokens'\nset xlabel 'tokens together'\n"
    "set logscale x 2\nset offsets 0,0,0,0\n"
    "plot $batches using 1:2 with linespoints linestyle 1\nunset multiplot\n";

static pi2_status write_commands(const char *path, const pi2_sparsity *sparsity, pi2_output_file *file) {
    const pi2_output_request request = { .path = path, .kind = &commands_kind };
    PI2_TRY(pi2_output_file_open(file, &request));
    pi2_output_file_print(file, "%s of a model, over %u tokens (docs/sparsity.md)\n", first_line,
                          (unsigned)sparsity->token_count);
    print_data(file, sparsity);
    pi2_output_file_write(file, commands, sizeof commands - 1);
    return pi2_output_file_finish(file);
}

/* ---- the picture ---- */

/** Starts gnuplot with what it prints in a pipe. *child_out 0: it is not installed. */
static pi2_status start_gnuplot(char *commands_path, int *pipe_out, pid_t *child_out) {
    char program[] = "gnuplot";
    char *arguments[] = { program, commands_path, NULL };
    posix_spawn_file_actions_t actions;
    int ends[2];
    *child_out = 0;
    *pipe_out = -1;
    if (pipe(ends) != 0) return pi2_fail(PI2_ERR_IO, "no pipe for gnuplot: %s", strerror(errno));
    (void)fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    (void)fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    int error = posix_spawn_file_actions_init(&actions);
    if (error == 0) {
        error = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        if (error == 0) error = posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        if (error == 0) error = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
        if (error == 0) error = posix_spawnp(child_out, program, &actions, NULL, arguments, environ);
        (void)posix_spawn_file_actions_destroy(&actions);
    }
    (void)close(ends[1]);
    *pipe_out = ends[0];
    if (error == 0) return PI2_OK;
    (void)close(ends[0]);
    *child_out = 0;
    return error == ENOENT ? PI2_OK : pi2_fail(PI2_ERR_IO, "gnuplot cannot be started: %s", strerror(error));
}

/** Writes what comes, with the remark behind its first line, by which the file is known for ours. */
static void take_picture(int pipe_end, pi2_output_file *file) {
    char piece[PIECE_BYTES];
    bool has_remark = false;
    for (;;) {
        const ssize_t got = read(pipe_end, piece, sizeof piece);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return;
        const char *line_end = has_remark ? NULL : memchr(piece, '\n', (size_t)got);
        const size_t begin = line_end ? (size_t)(line_end + 1 - piece) : 0;
        pi2_output_file_write(file, piece, begin);
        if (line_end) pi2_output_file_write(file, remark, sizeof remark - 1);
        has_remark = has_remark || line_end;
        pi2_output_file_write(file, piece + begin, (size_t)got - begin);
    }
}

static pi2_status draw(plot_paths *paths, pi2_output_file *file, bool *is_drawn_out) {
    pid_t child;
    int pipe_end = -1, result = 0;
    PI2_TRY(start_gnuplot(paths->commands, &pipe_end, &child));
    if (child == 0) return PI2_OK;
    const pi2_output_request request = { .path = paths->picture, .kind = &picture_kind };
    const pi2_status status = pi2_output_file_open(file, &request);
    if (status == PI2_OK) take_picture(pipe_end, file);
    (void)close(pipe_end);
    while (waitpid(child, &result, 0) < 0 && errno == EINTR) continue;
    PI2_TRY(status);
    if (WIFEXITED(result) && WEXITSTATUS(result) == NOT_FOUND) return PI2_OK; /* where only the child can tell */
    if (!WIFEXITED(result) || WEXITSTATUS(result) != 0) {
        return pi2_fail(PI2_ERR_IO, "gnuplot did not draw %s: try 'gnuplot %s'", paths->picture, paths->commands);
    }
    PI2_TRY(pi2_output_file_finish(file));
    *is_drawn_out = true;
    return PI2_OK;
}

pi2_status pi2_sparsity_plot(const pi2_sparsity *sparsity, const char *name, bool *is_drawn_out) {
    plot_paths paths;
    pi2_output_file file = { .stream = NULL };
    *is_drawn_out = false;
    PI2_TRY(name_files(name, &paths));
    pi2_status status = write_commands(paths.commands, sparsity, &file);
    pi2_output_file_discard(&file);
    if (status != PI2_OK) return status;
    file = (pi2_output_file){ .stream = NULL };
    status = draw(&paths, &file, is_drawn_out);
    pi2_output_file_discard(&file);
    return status;
}
