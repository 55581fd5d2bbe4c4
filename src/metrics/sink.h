/* sink.h: seam 4, where the numbers of a run go. Rows: console (a line a step), jsonl (log.jsonl,
 * for programs), tensorboard (event files). Only rank 0 has sinks. */
#ifndef CRIA_METRICS_SINK_H
#define CRIA_METRICS_SINK_H

#include "comm/comm.h"

typedef struct {
    int64_t step, steps; /* updates done, updates of the run */
    double loss, grad_norm, lr;
    double tokens; /* seen by the run so far */
    double ms;     /* per step, mean since the last record */
    double tok_s, tok_s_gpu, tflops_gpu;
    double mfu;     /* 0: the device's peak is not known */
    double mem_gib; /* peak device memory of rank 0 */
    double data_ms; /* per step, waited for the loader */
    double eta_seconds;
    const int64_t *comm_bytes; /* [COMM_KINDS] sent by rank 0 per step */
    bool has_crc;
    uint32_t weights_crc;
} StepRecord;

typedef struct {
    int64_t step;
    double loss, tokens; /* tokens counted in the loss */
} EvalRecord;

typedef struct {
    int64_t step;
    const char *path;
    int64_t bytes;
    double snapshot_seconds; /* that training stood still */
    double seconds;          /* from the begin until the file was on disk */
    uint32_t weights_crc;
} SaveRecord;

/* A step that the guard did not let pass (guard.h). */
typedef struct {
    const char *kind; /* "spike", "redo", "skip", "stop"; NULL: none */
    char *message;    /* what was found and done */
    int64_t step;     /* as in StepRecord */
    double loss, grad_norm;
    double z, mean; /* of the loss: standard deviations above the mean of the last steps */
    double norm_ratio, norm_mean;  /* of the gradient norm: times that mean */
    double again_loss, again_norm; /* of the second run; NAN: none */
    int64_t first_sample, samples; /* of the global batch */
} GuardRecord;

typedef struct Sink Sink;
struct FIELDS_BY_NAME Sink {
    void (*step)(Sink *s, const StepRecord *r);
    void (*eval)(Sink *s, const EvalRecord *r);
    /* The state of a step is copied and training goes on: what follows from the copy is not known.
     */
    void (*snapshot)(Sink *s, const SaveRecord *r);
    void (*save)(Sink *s, const SaveRecord *r);
    void (*guard)(Sink *s, const GuardRecord *r);
    void (*free)(Sink *s);
};

Sink *sink_console_create(void);
/* Appends to PATH; the head record is written as given (one line of JSON). ERR_ENV if it can't. */
Status sink_jsonl_create(Sink **s, const char *path, const char *head);
/* A new event file in DIR, with the tags Megatron-LM uses ("lm loss", "learning-rate", ...). */
Status sink_tensorboard_create(Sink **s, const char *dir);

#endif
