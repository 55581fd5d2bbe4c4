#include "session/session.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "comm/agree.h"
#include "session/device.h"

/* Runs on the loader's thread. */
static CpBatch *prepare(void *options, const MicroBatch *mb) {
    return cp_batch_create(options, mb);
}

/* Host memory alone: what session_enter() sets. */
static void set_stage(Session *s, int k) {
    const SessionStage *stage = &s->stages[k];
    const Config *c = stage->config;
    s->stage = k;
    s->config = c;
    s->micro_steps = c->batch.global / (c->batch.micro * s->dp);
    s->step_tokens = (double)c->batch.global * (double)c->model.seq_len;
    s->cp_options = (CpOptions){.backend = c->parallel.backend,
                                .rank = s->rank % c->parallel.cp,
                                .size = c->parallel.cp,
                                .ranks_per_node = s->cp_options.ranks_per_node,
                                .chunk_size = c->parallel.chunk_size,
                                .overlap_degree = c->parallel.overlap_degree,
                                .ring_accum = c->parallel.ring_accum,
                                .tokens = c->batch.micro * c->model.seq_len,
                                .seq_len = c->model.seq_len,
                                .mask = mask_spec(c, stage->slices),
                                .H = c->model.heads,
                                .K = c->model.kv_heads,
                                .D = c->model.head_dim};
    s->cp = stage->cp;
    if (s->data.n > 0) s->train_data = s->data.stages[k].train;
    if (s->data.n > 0) s->val = s->data.stages[k].val;
    s->loader = (LoaderOptions){.global = c->batch.global,
                                .micro = c->batch.micro,
                                .dp_rank = s->dp_rank,
                                .dp_size = s->dp,
                                .seq_len = c->model.seq_len,
                                .eod = c->data.eod,
                                .documents = c->data.mask == MASK_DOCUMENT,
                                .reset_positions = c->data.reset_positions,
                                .eod_mask_loss = c->data.eod_mask_loss,
                                .prepare = prepare,
                                .release = cp_batch_free,
                                .ctx = &s->cp_options};
}

static void set_options(Session *s, int rank, int world) {
    int cp = s->run_config->parallel.cp;
    s->world = world;
    s->rank = rank;
    s->dp = world / cp;
    s->dp_rank = rank / cp;
    set_stage(s, 0);
}

/* Do plans and buffers of attention serve both? */
static bool same_attention(const Config *a, const Config *b) {
    return a->batch.micro == b->batch.micro && a->model.seq_len == b->model.seq_len &&
           a->data.mask == b->data.mask && a->data.window == b->data.window &&
           a->data.prefix == b->data.prefix && strcmp(a->data.mask_file, b->data.mask_file) == 0;
}

static Status open_slices(Session *s) {
    for (int k = 0; k < s->n_stages; k++) {
        SessionStage *stage = &s->stages[k];
        const Config *c = stage->config;
        stage->owns_attention = k == 0 || !same_attention(stage[-1].config, c);
        stage->slices = stage->owns_attention ? NEW(Mask, 1) : stage[-1].slices;
        if (stage->owns_attention && c->data.mask == MASK_SLICES)
            CHECK(mask_load(stage->slices, c->data.mask_file, c->model.seq_len));
    }
    return OK;
}

static Status agree_slices(const Session *s, Comm *host) {
    StrBuf text = {0};
    for (int k = 0; k < s->n_stages; k++)
        strbuf_printf(&text, "mask_file %016llx\n",
                      (unsigned long long)mask_hash(s->stages[k].slices));
    Status st = agree_text(host, "what is used", strbuf_text(&text));
    strbuf_free(&text);
    return st;
}

static void list_stages(Session *s, const Config *config) {
    *s = (Session){.run_config = config, .config = config, .n_stages = config_n_stages(config)};
    s->stages = NEW(SessionStage, s->n_stages);
    for (int k = 0; k < s->n_stages; k++) s->stages[k].config = config_of_stage(config, k);
}

static Status check_sizes(const Session *s, const GpuProperties *gpu) {
    for (int k = 0; k < s->n_stages; k++) {
        Status st = device_check_model(s->stages[k].config, gpu);
        if (st != OK && k > 0) status_prefix("%s", s->run_config->timeline[k].name);
        CHECK(st);
    }
    return OK;
}

/* Refuses a model that no GPU can run before it opens one. */
static Status open_device(Session *s, char **why_cpu) {
    const Config *c = s->config;
    if (c->device == DEVICE_CUDA) CHECK(check_sizes(s, &gpu_h100));
    CHECK(device_open(&s->ops, c->device, c->run.deterministic, &c->model, why_cpu));
    return check_sizes(s, s->ops->gpu);
}

/* Local checks. */
static Status open_alone(Session *s, char **why_cpu) {
    CHECK(config_check_world(s->run_config, comm_world_size()));
    CHECK(open_slices(s));
    return open_device(s, why_cpu);
}

/* One warning, from the first rank for which `auto` chose a CPU. */
static Status warn_of_cpu(Comm *host, const char *why) {
    int32_t first = why != NULL ? host->rank : host->size;
    CHECK(comm_all_reduce(host, &first, 1, DT_I32, COMM_MIN, COMM_KIND_OTHER, NULL));
    if (first == host->rank) log_warn("%s", why);
    return OK;
}

static Status open_alike(Session *s, Comm *host, bool data) {
    char *why_cpu = NULL;
    Status st = comm_agree(host, open_alone(s, &why_cpu));
    if (st == OK) st = warn_of_cpu(host, why_cpu);
    if (st == OK) st = agree_device(host, s->ops);
    if (st == OK) st = agree_slices(s, host);
    if (st == OK && data) st = run_data_open_agreed(s->run_config, host, &s->data);
    free(why_cpu);
    return st;
}

/* A prompt has at most as many tokens as bytes, beside those that its tokenizer puts around it. */
static int64_t longest_text(const Config *c) {
    enum { MARKS = 16 };
    int64_t most = (int64_t)strlen(c->run.sample_prompt) + MARKS + c->run.sample_tokens;
    return i64_min(most, c->model.seq_len);
}

/* On every rank, though one generates: all lay out their memory alike. */
static void reserve_decoder(Session *s) {
    const Config *c = s->config;
    DecodeOptions o = {
        .ops = s->ops, .model = &c->model, .table = s->table, .window = c->data.window};
    for (int k = 0; k < s->n_stages; k++)
        o.max_tokens = i64_max(o.max_tokens, longest_text(s->stages[k].config));
    if (c->run.sample_every > 0) s->decoder = decoder_create(&o, &s->arena);
}

/* The attention of each stage; *most becomes the most local tokens of a micro-batch. The stages
 * take turns in one piece of memory. */
static Status reserve_attention(Session *s, int64_t *most) {
    *most = 0;
    for (int k = 0; k < s->n_stages; k++) {
        SessionStage *stage = &s->stages[k];
        int64_t S;
        set_stage(s, k);
        CHECK(cp_tokens(&s->cp_options, &S));
        *most = i64_max(*most, S);
        if (!stage->owns_attention) {
            stage->cp = stage[-1].cp;
            continue;
        }
        arena_begin_variant(&s->arena);
        CHECK(cp_create(&stage->cp, &s->cp_options, s->ops, s->comm.cp, &s->arena));
    }
    arena_end_variants(&s->arena);
    set_stage(s, 0);
    return OK;
}

static Status reserve(Session *s) {
    const Config *c = s->config;
    int64_t S;
    s->table = param_table_create(&c->model, s->world);
    CHECK(reserve_attention(s, &S));
    LlamaOptions o = {.ops = s->ops,
                      .model = &c->model,
                      .table = s->table,
                      .cp = s->cp,
                      .S = S,
                      .recompute = c->memory.recompute,
                      .lm_head_chunk = c->memory.lm_head_chunk,
                      .fp8 = c->precision == PRECISION_FP8 ? &c->fp8 : NULL,
                      .z_loss = c->optim.z_loss};
    s->llama = llama_create(&o, &s->arena);
    s->optimizer =
        optimizer_create(&c->optim, c->parallel.zero, s->table, s->ops, s->comm.world, &s->arena);
    reserve_decoder(s);
    arena_reserve(&s->arena, "activations", "loss", LLAMA_SUMS * sizeof(double),
                  (void **)&s->losses);
    return arena_check(&s->arena);
}

/* A context-parallel group over several equal nodes, filled in rank order, is planned in two
 * levels. */
static Status find_nodes(Session *s) {
    int64_t local = comm_local_size(), cp = s->config->parallel.cp;
    int64_t greatest[] = {local, -local, comm_local_rank() != s->rank % local};
    CHECK(comm_all_reduce(s->comm.host, greatest, 3, DT_I64, COMM_MAX, COMM_KIND_OTHER, NULL));
    bool alike = greatest[0] == -greatest[1] && greatest[2] == 0;
    if (alike && cp > local && cp % local == 0) s->cp_options.ranks_per_node = (int)local;
    return OK;
}

Status session_open(Session *s, const Config *config, const SessionOptions *options) {
    static const SessionOptions none = {0};
    if (options == NULL) options = &none;
    list_stages(s, config);
    Comm *host;
    CHECK(comm_mpi_create(&host));
    Status st = open_alike(s, host, !options->without_data);
    comm_free(host);
    CHECK(st);
    CHECK(comm_open(&s->comm, s->ops, config->parallel.cp));
    if (options->wrap != NULL) options->wrap(options->ctx, &s->ops, &s->comm);
    set_options(s, s->comm.host->rank, s->comm.host->size);
    CHECK(find_nodes(s));
    return comm_agree(s->comm.host, reserve(s));
}

/* The fields that reserve() reads. */
static const Ops planned_ops[] = {[false] = {.name = "cuda",
                                             .device_name = "GPUs (bf16)",
                                             .act_bytes = 2,
                                             .act_dtype = DT_BF16,
                                             .gpu = &gpu_h100},
                                  [true] = {.name = "cpu",
                                            .device_name = "CPUs (fp32)",
                                            .act_bytes = 4,
                                            .act_dtype = DT_F32,
                                            .host_memory = true}};

Status session_plan(Session *s, const Config *config, int world, char **no_data) {
    REQUIRE(config->n_timeline == 0);
    list_stages(s, config);
    if (no_data != NULL) *no_data = NULL;
    CHECK(config_check_world(config, world));
    CHECK(open_slices(s));
    s->planned = NEW(Comm, 2);
    s->comm.world = &s->planned[0];
    s->comm.cp = &s->planned[1];
    s->comm.world->size = world;
    s->comm.cp->size = config->parallel.cp;
    s->ops = &planned_ops[config->device == DEVICE_CPU];
    Status st = device_check_model(config, s->ops->gpu);
    if (config->device == DEVICE_CUDA) CHECK(st);
    if (st != OK && no_data != NULL) log_warn("on GPUs this plan cannot run: %s", status_message());
    status_ignore(st);
    st = no_data != NULL ? run_data_open_train(config, &s->train_data) : OK;
    if (st != OK) *no_data = mem_strdup(status_message());
    status_ignore(st);
    set_options(s, 0, world);
    return reserve(s);
}

static Status start_alone(Session *s) {
    CHECK(arena_commit(&s->arena, s->ops));
    CHECK(s->ops->stream_create(s->ops, &s->stream));
    CHECK(optimizer_start(s->optimizer, llama_weights(s->llama), llama_gradients(s->llama)));
    s->ops->mem_zero(s->losses, LLAMA_SUMS * sizeof(double), s->stream);
    if (s->decoder != NULL) CHECK(decoder_start(s->decoder, llama_weights(s->llama), s->stream));
    return llama_start(s->llama, s->stream);
}

Status session_enter(Session *s, int k) {
    int64_t S;
    set_stage(s, k);
    CHECK(cp_tokens(&s->cp_options, &S));
    if (s->decoder != NULL)
        decoder_set_stage(s->decoder, &s->config->model, s->config->data.window, s->stream);
    return llama_set_stage(s->llama, &s->config->model, s->cp, S, s->stream);
}

Status session_start(Session *s) {
    Status st = start_alone(s);
    if (st == OK) st = session_enter(s, s->stage);
    CHECK(comm_agree(s->comm.host, st));
    if (s->config->parallel.transport == TRANSPORT_NCCL) return OK;
    return comm_agree(s->comm.host,
                      comm_register_buffer(s->comm.cp, s->arena.base, s->arena.bytes));
}

static void close_stages(Session *s) {
    for (int k = 0; k < s->n_stages; k++) {
        const SessionStage *stage = &s->stages[k];
        if (!stage->owns_attention) continue;
        cp_free(stage->cp);
        mask_free(stage->slices);
        free(stage->slices);
    }
    free(s->stages);
}

void session_close(Session *s) {
    if (s->data.n == 0) dataset_close(s->train_data); /* of session_plan() */
    run_data_close(&s->data);
    optimizer_free(s->optimizer);
    decoder_free(s->decoder);
    llama_free(s->llama);
    close_stages(s);
    param_table_free(s->table);
    if (s->stream != NULL) s->ops->stream_free(s->stream);
    if (s->comm.host != NULL) comm_close(&s->comm); /* it may use the arena */
    arena_free(&s->arena);
    free(s->planned);
    free(s->hf);
    free(s->lineage);
    *s = (Session){0};
}
