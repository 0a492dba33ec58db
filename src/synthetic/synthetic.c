/* synthetic.c: options in, file out. */
#include "powerinfer2/synthetic.h"

#include "base/fail.h"
#include "synthetic/synthetic_internal.h"

static uint64_t count_parameters(const pi2_synthetic_plan *plan) {
    uint64_t count = 0;
    for (uint32_t i = 0; i < plan->tensor_count; i++) {
        const pi2_synthetic_tensor *tensor = &plan->tensors[i];
        count += tensor->dimensions[0] * tensor->dimensions[1] * tensor->dimensions[2];
    }
    return count;
}

static pi2_status write_file(const pi2_synthetic_plan *plan, const uint8_t *header, size_t header_bytes,
                             uint64_t file_bytes) {
    const pi2_synthetic_options *options = plan->options;
    pi2_file_stream *stream = NULL;
    PI2_TRY(pi2_file_stream_open(options->output_path, file_bytes, options->overwrite,
                                 &options->callbacks, &stream));
    pi2_status status = pi2_file_stream_write(stream, header, header_bytes);
    if (status == PI2_OK) status = pi2_synthetic_write_tensors(plan, stream);
    if (status == PI2_OK) status = pi2_file_stream_finish(stream);
    pi2_file_stream_close(stream);
    return status;
}

static pi2_status write_model(const pi2_synthetic_plan *plan, pi2_gguf_writer *writer,
                              pi2_synthetic_report *report) {
    const pi2_weight_format *format = NULL;
    const uint8_t *header = NULL;
    uint32_t file_type = 0;
    size_t header_bytes = 0;
    PI2_TRY(pi2_synthetic_type_find(plan->options->type, &format, &file_type));
    PI2_TRY(pi2_synthetic_write_metadata(plan, file_type, writer));
    for (uint32_t i = 0; i < plan->tensor_count; i++) {
        const pi2_synthetic_tensor *tensor = &plan->tensors[i];
        (void)pi2_gguf_writer_tensor(writer, tensor->name, (uint32_t)tensor->format->type,
                                     tensor->dimension_count, tensor->dimensions);
    }
    PI2_TRY(pi2_gguf_writer_finish(writer, &header, &header_bytes));
    report->file_bytes = header_bytes + pi2_gguf_writer_data_bytes(writer);
    report->parameter_count = count_parameters(plan);
    report->tensor_count = plan->tensor_count;
    return write_file(plan, header, header_bytes, report->file_bytes);
}

pi2_status pi2_synthetic_write(const pi2_synthetic_options *options,
                               pi2_synthetic_report *report_out) {
    if (!options->output_path || !*options->output_path) {
        return pi2_fail(PI2_ERR_INVALID, "no file to write: give one with -o FILE");
    }
    pi2_synthetic_plan plan;
    pi2_gguf_writer *writer = NULL;
    pi2_synthetic_report report = { 0 };
    pi2_status status = pi2_synthetic_plan_make(options, &plan);
    if (status == PI2_OK) status = pi2_gguf_writer_open(32, &writer);
    if (status == PI2_OK) status = write_model(&plan, writer, &report);
    pi2_gguf_writer_close(writer);
    pi2_synthetic_plan_free(&plan);
    if (report_out) *report_out = report;
    return status;
}
