/* world.c: what a configuration demands of the number of ranks. */
#include "config/keys.h"

static long long ll(int64_t v) {
    return (long long)v;
}

/* "2, 4 or 8": the divisors of n up to `most`. */
static void print_divisors(int64_t n, int64_t most, StrBuf *out) {
    int64_t last = 0;
    for (int64_t d = 1; d <= i64_min(n, most); d++) {
        if (n % d != 0) continue;
        if (last > 0) strbuf_printf(out, "%s%lld", out->len > 0 ? ", " : "", ll(last));
        last = d;
    }
    strbuf_printf(out, "%s%lld", out->len > 0 ? " or " : "", ll(last));
}

/* "24 or 36": the multiples of `unit` next to n. */
static void print_multiples(int64_t n, int64_t unit, StrBuf *out) {
    int64_t below = n / unit * unit;
    if (below > 0) strbuf_printf(out, "%lld or ", ll(below));
    strbuf_printf(out, "%lld", ll(below + unit));
}

static void check_divides(ConfigReader *r, const Config *c, int world) {
    int cp = c->parallel.cp;
    StrBuf near = {0};
    if (world % cp != 0) {
        print_divisors(world, cp, &near);
        config_problem(r,
                       "parallel.cp: found %d on %d ranks (%d = %d x %d + %d), expected a divisor "
                       "of the ranks: use parallel.cp %s, or ",
                       cp, world, world, cp, world / cp, world % cp, near.text);
        strbuf_free(&near);
        print_multiples(world, cp, &near);
        strbuf_printf(&r->problems, "%s ranks", near.text);
    } else {
        int64_t dp = world / cp, pass = c->batch.micro * dp;
        if (c->batch.global % pass != 0) {
            print_multiples(c->batch.global, pass, &near);
            config_problem(r,
                           "batch.global: found %lld, expected a multiple of batch.micro %lld x %d "
                           "ranks / cp %d = %lld (%lld = %lld x %lld + %lld): use batch.global %s",
                           ll(c->batch.global), ll(c->batch.micro), world, cp, ll(pass),
                           ll(c->batch.global), ll(pass), ll(c->batch.global / pass),
                           ll(c->batch.global % pass), near.text);
        }
    }
    strbuf_free(&near);
}

static void check_backend(ConfigReader *r, const Config *c) {
    int64_t cp = c->parallel.cp, tokens = c->batch.micro * c->model.seq_len;
    int64_t chunk = c->parallel.chunk_size;
    CpBackend backend = c->parallel.backend;
    const char *name = cp_backend_names[backend];
    StrBuf near = {0};
    if (cp == 1) return;
    if (cp_backend_is(backend, BACKEND_SPLITS_HEADS) && c->model.kv_heads % cp != 0) {
        print_divisors(c->model.kv_heads, cp, &near);
        config_problem(r,
                       "parallel.cp: found %lld with backend %s, expected a divisor of "
                       "model.kv_heads %d, which it shares out: use parallel.cp %s, or another "
                       "backend",
                       ll(cp), name, c->model.kv_heads, near.text);
    }
    if (cp_backend_is(backend, BACKEND_NEIGHBOURS) && tokens % (2 * cp) != 0) {
        print_multiples(c->model.seq_len, 2 * cp, &near);
        config_problem(r,
                       "model.seq_len: found %lld x batch.micro %lld = %lld tokens with backend "
                       "%s, expected a multiple of 2 x cp %lld = %lld: use model.seq_len %s, or "
                       "another backend",
                       ll(c->model.seq_len), ll(c->batch.micro), ll(tokens), name, ll(cp),
                       ll(2 * cp), near.text);
    }
    if (cp_backend_is(backend, BACKEND_NEEDED_ROWS) && chunk > 0 && ceil_div(tokens, chunk) < cp)
        config_problem(r,
                       "parallel.chunk_size: found %lld, which cuts batch.micro %lld x "
                       "model.seq_len %lld = %lld tokens into %lld chunks, expected one or more "
                       "for each of %lld ranks: use at most %lld, or 0",
                       ll(chunk), ll(c->batch.micro), ll(c->model.seq_len), ll(tokens),
                       ll(ceil_div(tokens, chunk)), ll(cp), ll(tokens / cp));
    strbuf_free(&near);
}

static Status check(const Config *c, int world) {
    ConfigReader r = {0};
    check_divides(&r, c, world);
    check_backend(&r, c);
    return config_problems_status(&r);
}

Status config_check_world(const Config *c, int world) {
    REQUIRE(world > 0);
    CHECK(check(c, world));
    for (int k = 0; k < c->n_timeline; k++) {
        Status st = check(c->timeline[k].config, world);
        if (st != OK) status_prefix("%s", c->timeline[k].name);
        CHECK(st);
    }
    return OK;
}
