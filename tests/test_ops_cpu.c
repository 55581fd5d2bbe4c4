/* Memory, streams and events of the CPU backend. */
#include "op_test.h"
#include "ops/arena.h"

/* The address sanitizer otherwise ends the program when an allocation is larger than it supports.
 */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}

static void every_entry_of_the_table_is_filled(void **state) {
    (void)state;
#define OP(result, name, class, parameters, arguments, cost) assert_non_null(cpu_ops()->name);
#define HOST_OP(result, name, parameters)                    assert_non_null(cpu_ops()->name);
#include "ops/ops.def"
    assert_string_equal(cpu_ops()->name, "cpu");
    assert_int_equal(cpu_ops()->act_bytes, dtype_bytes(cpu_ops()->act_dtype));
}

static void the_peak_counts_what_was_held_at_once(void **state) {
    (void)state;
    const Ops *ops = cpu_ops();
    void *a, *b, *c, *host;
    assert_status_ok(ops->mem_alloc(&a, 1000, "a"));
    int64_t start = ops->mem_peak();
    assert_true(start >= 1000);
    assert_status_ok(ops->mem_alloc(&b, 500, "b"));
    ops->mem_free(b);
    assert_status_ok(ops->mem_alloc(&c, 300, "c"));
    assert_status_ok(ops->host_alloc(&host, 1 << 20, "host memory is not device memory"));
    assert_int_equal(ops->mem_peak(), start + 500);
    assert_int_equal((uintptr_t)a % 64, 0);
    assert_int_equal((uintptr_t)c % 64, 0);
    ops->mem_free(a);
    ops->mem_free(c);
    ops->host_free(host);
    ops->mem_free(NULL);
    ops->host_free(NULL);
}

static void an_impossible_size_is_an_error_that_names_the_tensor(void **state) {
    (void)state;
    void *p = NULL;
    int64_t peak = cpu_ops()->mem_peak();
    assert_status_fails(cpu_ops()->mem_alloc(&p, INT64_MAX / 2, "the logits"), ERR_ENV,
                        "the logits");
    assert_status_fails(cpu_ops()->mem_alloc(&p, INT64_MAX, "the logits"), ERR_ENV, "the logits");
    assert_null(p);
    assert_int_equal(cpu_ops()->mem_peak(), peak);
}

static void a_run_without_room_is_told_what_to_lower_once(void **state) {
    (void)state;
    Arena arena = {0};
    void *slot;
    arena_reserve(&arena, "weights", "all", (int64_t)1 << 60, &slot);
    assert_status_fails(arena_commit(&arena, cpu_ops()), ERR_ENV,
                        "GiB); use memory.recompute=layer, a smaller model or batch.micro, or more "
                        "ranks\nmemory per rank");
    arena_free(&arena);
}

static void variants_share_the_memory_of_the_largest(void **state) {
    (void)state;
    Arena arena = {0};
    void *before, *small, *large[2], *behind;
    arena_reserve(&arena, "cp", "before", 256, &before);
    arena_begin_variant(&arena);
    arena_reserve(&arena, "cp", "small", 100, &small);
    arena_begin_variant(&arena);
    arena_reserve(&arena, "cp", "large", 256, &large[0]);
    arena_reserve(&arena, "cp", "larger", 512, &large[1]);
    arena_end_variants(&arena);
    arena_reserve(&arena, "weights", "behind", 256, &behind);
    assert_int_equal(arena.bytes, 256 + 768 + 256);
    assert_int_equal(arena_region_bytes(&arena, "cp"), 256 + 768);
    StrBuf table = {0};
    arena_print(&arena, &table);
    assert_non_null(strstr(table.text, "  3 buffers, largest: larger"));
    strbuf_free(&table);
    assert_status_ok(arena_commit(&arena, cpu_ops()));
    char *base = before;
    assert_ptr_equal(small, base + 256);
    assert_ptr_equal(large[0], base + 256);
    assert_ptr_equal(large[1], base + 512);
    assert_ptr_equal(behind, base + 1024);
    arena_free(&arena);
}

static void nothing_can_be_allocated_copied_and_zeroed(void **state) {
    (void)state;
    void *p;
    assert_status_ok(cpu_ops()->mem_alloc(&p, 0, "nothing"));
    assert_non_null(p);
    cpu_ops()->mem_zero(NULL, 0, NULL);
    cpu_ops()->mem_copy(NULL, NULL, 0, NULL);
    cpu_ops()->mem_free(p);
}

static void copy_and_zero_touch_exactly_their_bytes(void **state) {
    (void)state;
    float *a = tensor_random(10, 1, 1), *b = tensor_new(10), zero[10] = {0};
    cpu_ops()->mem_copy(b, a, 40, NULL);
    assert_bits("copy", b, a, 10);
    cpu_ops()->mem_zero(b, 40, NULL);
    assert_bits("zero", b, zero, 10);
    tensor_free(a);
    tensor_free(b);
}

static void events_measure_time_in_milliseconds(void **state) {
    (void)state;
    const Ops *ops = cpu_ops();
    Stream *stream;
    Event *begin, *end;
    assert_status_ok(ops->stream_create(ops, &stream));
    assert_status_ok(ops->event_create(&begin));
    assert_status_ok(ops->event_create(&end));
    double start = time_now();
    ops->event_record(begin, stream);
    double inner = time_now();
    while (time_now() < inner + 2e-3) {
    }
    ops->event_record(end, stream);
    double outer = 1e3 * (time_now() - start);
    ops->event_wait(end, stream);
    assert_status_ok(ops->stream_sync(stream));
    assert_true(ops->event_ms(begin, end) >= 2);
    assert_true(ops->event_ms(begin, end) <= outer + 1e-3);
    ops->event_free(begin);
    ops->event_free(end);
    ops->stream_free(stream);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_entry_of_the_table_is_filled),
        cmocka_unit_test(the_peak_counts_what_was_held_at_once),
        cmocka_unit_test(an_impossible_size_is_an_error_that_names_the_tensor),
        cmocka_unit_test(a_run_without_room_is_told_what_to_lower_once),
        cmocka_unit_test(variants_share_the_memory_of_the_largest),
        cmocka_unit_test(nothing_can_be_allocated_copied_and_zeroed),
        cmocka_unit_test(copy_and_zero_touch_exactly_their_bytes),
        cmocka_unit_test(events_measure_time_in_milliseconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
