#include "cli/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/estimate.h"
#include "report/plan_report.h"
#include "report/plan_svg.h"
#include "report/stages_report.h"
#include "base/file.h"
#include "base/output.h"
#include "cli/commands.h"
#include "base/rng.h"
#include "base/text.h"
#include "data/synthetic.h"
#include "report/run_report.h"

typedef struct {
    const Config *run; /* with its stages */
    int stage, ranks;
    Config config; /* of the stage; borrows its strings */
    Session s;
    Mask mask;
    const char *source; /* of the mask */
    int64_t documents;  /* 0: it is not made of documents */
    char *no_data;      /* why data.train cannot be read; NULL: it can */
    CostModel cost;
    AttnPlan plan, others[CP_BACKENDS];
    int n_others;
    double seconds; /* to make the plan */
} Planning;

/* ---- the mask ------------------------------------------------------------------------------ */

static Status document_mask(Planning *p) {
    const CpOptions *o = &p->s.cp_options;
    if (p->s.train_data != NULL) {
        LoaderOptions loader = p->s.loader;
        loader.prepare = NULL;
        MicroBatch mb;
        CHECK(loader_batch(&mb, p->s.train_data, &loader, 0, 0));
        p->source = "first micro-batch";
        p->documents = mb.n_docs;
        Status st = cp_mask(&p->mask, o, mb.doc_begin, mb.n_docs);
        loader_batch_free(&mb, &loader);
        return st;
    }
    int32_t *begin = NEW(int32_t, o->tokens);
    p->source = "drawn";
    p->documents = synthetic_pack((uint64_t)p->config.run.seed, rng_stream(RNG_PLAN, 0), o->tokens,
                                  o->seq_len, begin);
    Status st = cp_mask(&p->mask, o, begin, p->documents);
    free(begin);
    return st;
}

static Status open_mask(Planning *p) {
    const CpOptions *o = &p->s.cp_options;
    if (o->mask.kind == MASK_DOCUMENT) return document_mask(p);
    p->source = o->mask.kind == MASK_SLICES ? "file" : mask_names[o->mask.kind];
    return cp_mask(&p->mask, o, NULL, 0);
}

/* ---- the plans ----------------------------------------------------------------------------- */

/* The other backends that can do these sizes. */
static void plan_others(Planning *p) {
    const CpOptions *o = &p->s.cp_options;
    for (CpBackend b = 0; b < CP_BACKENDS && o->size > 1; b++) {
        CpOptions other = *o;
        int64_t S;
        other.backend = b;
        if (b == o->backend || cp_backend_is(b, BACKEND_ONE_RANK)) continue;
        Status st = cp_tokens(&other, &S);
        if (st == OK) st = cp_plan(&p->others[p->n_others], &other, &p->mask);
        p->n_others += st == OK;
        status_ignore(st);
    }
}

static Status open_planning(Planning *p, const PlanCommandOptions *o) {
    Config *c = &p->config;
    if (o->mask_file != NULL) {
        c->data.mask = MASK_SLICES;
        c->data.mask_file = (char *)(uintptr_t)o->mask_file;
    }
    CHECK(session_plan(&p->s, c, p->ranks, &p->no_data));
    p->s.cp_options.ranks_per_node = (int)o->ranks_per_node;
    CHECK(open_mask(p));
    p->cost = cost_default(c->model.heads, c->model.kv_heads, c->model.head_dim);
    p->cost.act_bytes = p->s.ops->act_bytes;
    double begin = time_now();
    CHECK(cp_plan(&p->plan, &p->s.cp_options, &p->mask));
    p->seconds = time_now() - begin;
    plan_others(p);
    return OK;
}

static void close_planning(Planning *p) {
    for (int i = 0; i < p->n_others; i++) plan_free(&p->others[i]);
    plan_free(&p->plan);
    mask_free(&p->mask);
    free(p->no_data);
    session_close(&p->s);
}

/* ---- report ------------------------------------------------------------------------- */

static Status print_text(const Planning *p, const PlanReport *report, StrBuf *out) {
    const Config *c = &p->config;
    int n = config_n_stages(p->run);
    if (n > 1)
        strbuf_printf(
            out, "stage      %d of 0 .. %d, which --stage chooses; a table of all is at the end\n",
            p->stage, n - 1);
    session_describe(&p->s, out);
    run_estimate_text(&p->s, &p->plan, out);
    strbuf_printf(out, "\n");
    if (p->no_data != NULL) {
        char *reason = mem_printf("is not used: %s", p->no_data);
        strbuf_printf(out, "data");
        strbuf_wrap(out, reason, 11);
        free(reason);
    }
    double S = (double)p->mask.S, area = (double)mask_area(&p->mask);
    strbuf_printf(out, "mask       %s", p->source);
    if (p->documents > 0) strbuf_printf(out, ", %" PRId64 " documents", p->documents);
    if (c->data.window > 0 && c->data.mask != MASK_SLICES)
        strbuf_printf(out, ", window %" PRId64, c->data.window);
    strbuf_printf(out, ":\n           area %s of a micro-batch of %.0f tokens, %.1f %% of causal\n",
                  number_text(area, " ").text, S, 100 * area / (0.5 * S * (S + 1)));
    strbuf_printf(out, "plan       ");
    plan_report_text(report, out);
    if (n > 1) strbuf_printf(out, "\n");
    return stages_report_text(p->run, p->ranks, p->s.ops->host_memory, out);
}

static Status print_json(const Planning *p, const PlanReport *report, StrBuf *out) {
    strbuf_printf(out, "{");
    session_describe_json(&p->s, out);
    strbuf_printf(out,
                  ",\"mask\":{\"source\":\"%s\",\"window\":%" PRId64 ",\"documents\":%" PRId64
                  ",\"no_data\":",
                  p->source, p->s.config->data.window, p->documents);
    if (p->no_data != NULL)
        strbuf_json_string(out, p->no_data);
    else
        strbuf_printf(out, "null");
    strbuf_printf(out, "},\"plan\":");
    plan_report_json(report, out);
    strbuf_printf(out, ",\"estimate\":");
    if (estimate_is_made(&p->s)) {
        RunEstimate e = run_estimate(&p->s, &p->plan, &p->cost);
        strbuf_printf(out, "{\"tok_s\":%.6g,\"step_seconds\":%.6g,\"run_seconds\":%.6g}", e.tok_s,
                      e.step_seconds, e.run_seconds);
    } else {
        strbuf_printf(out, "null");
    }
    strbuf_printf(out, ",\"stages\":");
    CHECK(stages_report_json(p->run, p->ranks, p->s.ops->host_memory, out));
    strbuf_printf(out, ",\"plan_seconds\":%.6f}\n", p->seconds);
    return OK;
}

static const AttnPlan *plan_of(const Planning *p, CpBackend backend) {
    if (p->plan.backend == backend) return &p->plan;
    for (int i = 0; i < p->n_others; i++)
        if (p->others[i].backend == backend) return &p->others[i];
    return NULL;
}

/* The plans of the backends that a list names. */
static Status choose_plans(const Planning *p, const char *list, const AttnPlan **plans, int *n) {
    for (const char *at = list; at != NULL && *n < CP_BACKENDS; at = strchr(at, ',')) {
        at += at[0] == ',';
        size_t len = strcspn(at, ",");
        CpBackend b = 0;
        while (b < CP_BACKENDS &&
               (strncmp(at, cp_backend_names[b], len) != 0 || cp_backend_names[b][len] != '\0'))
            b++;
        const AttnPlan *plan = b < CP_BACKENDS ? plan_of(p, b) : NULL;
        if (plan == NULL)
            return status_fail(ERR_USER,
                               "--backends: found '%.*s', expected backends that can run this "
                               "configuration, as in ring,magi",
                               (int)len, at);
        plans[(*n)++] = plan;
    }
    return OK;
}

static Status write_svg(const Planning *p, const PlanCommandOptions *o) {
    const AttnPlan *plans[CP_BACKENDS] = {&p->plan};
    int n = o->backends == NULL;
    CHECK(choose_plans(p, o->backends, plans, &n));
    StrBuf svg = {0};
    plan_svg(plans, n, &p->cost, &svg);
    Status st = file_write_text(o->svg, &svg, "the picture");
    strbuf_free(&svg);
    return st;
}

Status plan_command_run(const Config *config, const PlanCommandOptions *options, StrBuf *out) {
    if (options->stage >= config_n_stages(config))
        return status_fail(ERR_USER, "--stage %" PRId64 ": expected a stage from 0 to %d",
                           options->stage, config_n_stages(config) - 1);
    Planning p = {.run = config,
                  .stage = (int)options->stage,
                  .ranks = options->ranks > 0 ? (int)options->ranks : config->parallel.cp};
    Status st;
    p.config = *config_of_stage(config, p.stage);
    CHECK_GOTO(open_planning(&p, options), done);
    PlanReport report = {&p.plan, p.others, p.n_others, &p.cost};
    CHECK_GOTO((options->json ? print_json : print_text)(&p, &report, out), done);
    if (options->svg != NULL) CHECK_GOTO(write_svg(&p, options), done);
done:
    close_planning(&p);
    return st;
}

static Status plan(const Args *a) {
    Config config = {0};
    StrBuf text = {0};
    const PlanCommandOptions *o = a->options;
    if (o->backends != NULL && o->svg == NULL)
        return status_fail(ERR_USER, "--backends picks what --svg FILE draws: give both");
    Status st = config_load(&config, a->paths[0], a->n_overrides, a->overrides);
    if (st == OK) config_warn_notes(&config);
    if (st == OK) st = plan_command_run(&config, a->options, &text);
    if (st == OK) output_write(OUTPUT_STDOUT, strbuf_text(&text), text.len);
    strbuf_free(&text);
    config_free(&config);
    return st;
}

static const ArgOption options[] = {
    ARG_OPTION("ranks", INTEGER, PlanCommandOptions, ranks, "N",
               "Ranks of the whole run. [parallel.cp]", .min = 1, .max = 1 << 20),
    ARG_OPTION("ranks-per-node", INTEGER, PlanCommandOptions, ranks_per_node, "N",
               "Ranks of a context-parallel group on a node; training finds out. [all]", .min = 1,
               .max = 1 << 20),
    ARG_OPTION("stage", INTEGER, PlanCommandOptions, stage, "N",
               "The stage whose plan is shown; 0 is the file's own keys. [0]", .min = 0,
               .max = 1 << 20),
    ARG_OPTION("json", FLAG, PlanCommandOptions, json, NULL, "Print one JSON object."),
    ARG_OPTION("svg", TEXT, PlanCommandOptions, svg, "FILE", "Draw the plan."),
    ARG_OPTION("backends", TEXT, PlanCommandOptions, backends, "LIST",
               "With --svg: plans to draw side by side, as in ring,magi. [parallel.backend]"),
    ARG_OPTION("mask-file", TEXT, PlanCommandOptions, mask_file, "FILE",
               "Plan for the mask in this file: lines q_begin q_end k_begin k_end TYPE, where TYPE "
               "is FULL, "
               "CAUSAL, INV_CAUSAL or BI_CAUSAL, and # begins a comment."),
    {.name = NULL}};
/* Every word of the text that says more than its unit. */
static void explain(const char *name, StrBuf *out) {
    (void)name;
    static const struct {
        const char *word, *meaning;
    } words[] = {
        {"speed", "Tokens a second of all ranks, estimated for H200s: the FLOPs of the matrix "
                  "products at the rate that the example 1B reaches, plus the predicted attention "
                  "of the slowest rank in every layer. Small micro-batches stay below it."},
        {"cards", "The memory of a rank, and 3 GiB for CUDA and NCCL, against GPUs of 80 and 141 "
                  "GB; below it, keys to change where 80 GB are too few or mostly empty. All "
                  "leave batch.global and the number of ranks as they are."},
        {"area", "Pairs of a query and a key that the mask allows: the work of attention. Of a "
                 "rank: those of its queries. Of mean: over the mean of all ranks."},
        {"chunks", "Equal parts of the micro-batch that are dealt out to ranks."},
        {"dispatch", "Which rank gets which chunks: contiguous or zigzag by position; min_heap, "
                     "local_search or two_level by area and, the last two, by rows to move."},
        {"rows", "Tokens of one layer. Rows in, rows out: those whose keys and values a rank "
                 "receives and sends; forward pass."},
        {"local %", "Share of a rank's area whose keys it holds itself."},
        {"stages", "Parts of attention between which keys arrive; 0 holds the rank's own keys."},
        {"degree", "Stages of remote keys (magi), parallel.overlap_degree."},
        {"imbalance", "By how much the greatest area of a rank exceeds the mean."},
        {"MiB", "Bytes that all ranks together send in a layer's forward and backward pass."},
        {"of ring", "Bytes moved, over those of ring attention, which moves every key to every "
                    "rank."},
        {"exposed", "Share of the time in which attention waits for transfers."},
        {"hash", "Equal for equal plans: of two runs, or two versions."},
        {">", "The backend of the configuration (parallel.backend)."}};
    strbuf_printf(out,
                  "\nWords of the text; times are of one layer's attention, in microseconds:\n");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        strbuf_printf(out, "  %s", words[i].word);
        strbuf_wrap(out, words[i].meaning, 14);
    }
}

const Command command_plan = {
    .name = "plan",
    .summary = "Print what a configuration amounts to on N ranks.",
    .arguments = "CONFIG [key=value ...]",
    .details =
        "Prints batch, memory, estimated speed and time, and which rank computes and moves what "
        "in attention. "
        "Needs no MPI, no GPU and no data.",
    COMMAND_OPTIONS(options, PlanCommandOptions),
    COMMAND_PATHS(1, 1),
    .overrides = true,
    .more_help = explain,
    .run = plan};
