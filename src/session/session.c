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

static void set_options(Session *s, int rank, int world) {
    const Config *c = s->config;
    s->world = world;
    s->rank = rank;
    s->dp = world / c->parallel.cp;
    s->dp_rank = rank / c->parallel.cp;
    s->micro_steps = c->batch.global / (c->batch.micro * s->dp);
    s->step_tokens = (double)c->batch.global * (double)c->model.seq_len;
    s->cp_options = (CpOptions){.backend = c->parallel.backend,
                                .rank = rank % c->parallel.cp,
                                .size = c->parallel.cp,
                                .chunk_size = c->parallel.chunk_size,
                                .overlap_degree = c->parallel.overlap_degree,
                                .ring_accum = c->parallel.ring_accum,
                                .tokens = c->batch.micro * c->model.seq_len,
                                .seq_len = c->model.seq_len,
                                .mask = mask_spec(c, &s->slices),
                                .H = c->model.heads,
                                .K = c->model.kv_heads,
                                .D = c->model.head_dim};
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

static Status open_slices(Session *s) {
    const Config *c = s->config;
    return c->data.mask == MASK_SLICES ? mask_load(&s->slices, c->data.mask_file, c->model.seq_len)
                                       : OK;
}

static Status agree_slices(const Session *s, Comm *host) {
    char *text = mem_printf("mask_file %016llx", (unsigned long long)mask_hash(&s->slices));
    Status st = agree_text(host, "what is used", text);
    free(text);
    return st;
}

/* Refuses a model that no GPU can run before it opens one. */
static Status open_device(Session *s, char **why_cpu) {
    const Config *c = s->config;
    if (c->device == DEVICE_CUDA) CHECK(device_check_model(c, &gpu_h100));
    CHECK(device_open(&s->ops, c->device, c->run.deterministic, &c->model, why_cpu));
    return device_check_model(c, s->ops->gpu);
}

/* Local checks. */
static Status open_alone(Session *s, char **why_cpu) {
    CHECK(config_check_world(s->config, comm_world_size()));
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
    if (st == OK && data) st = run_data_open_agreed(s->config, host, &s->train_data, &s->val);
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
    DecodeOptions o = {.ops = s->ops,
                       .model = &c->model,
                       .table = s->table,
                       .max_tokens = longest_text(c),
                       .window = c->data.window};
    if (c->run.sample_every > 0) s->decoder = decoder_create(&o, &s->arena);
}

static Status reserve(Session *s) {
    const Config *c = s->config;
    int64_t S;
    CHECK(cp_tokens(&s->cp_options, &S));
    s->table = param_table_create(&c->model, s->world);
    CHECK(cp_create(&s->cp, &s->cp_options, s->ops, s->comm.cp, &s->arena));
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
    *s = (Session){.config = config};
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
    *s = (Session){.config = config};
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

Status session_start(Session *s) {
    CHECK(comm_agree(s->comm.host, start_alone(s)));
    if (s->config->parallel.transport == TRANSPORT_NCCL) return OK;
    return comm_agree(s->comm.host,
                      comm_register_buffer(s->comm.cp, s->arena.base, s->arena.bytes));
}

void session_close(Session *s) {
    dataset_close(s->train_data);
    val_sets_close(&s->val);
    mask_free(&s->slices);
    optimizer_free(s->optimizer);
    decoder_free(s->decoder);
    llama_free(s->llama);
    cp_free(s->cp);
    param_table_free(s->table);
    if (s->stream != NULL) s->ops->stream_free(s->stream);
    if (s->comm.host != NULL) comm_close(&s->comm); /* it may use the arena */
    arena_free(&s->arena);
    free(s->planned);
    free(s->hf);
    free(s->lineage);
    *s = (Session){0};
}
