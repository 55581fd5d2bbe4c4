/* Checkpoints in a world of one: what is saved can be read, any damage is noticed, a save that
 * fails leaves everything as it was. tests/mpi_checkpoint.c does the same for many ranks. */
#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ckpt/checkpoint.h"
#include "base/rng.h"

enum { N_TENSORS = 5, N_ENTRIES = 2 };
static const SafeTensor tensors[N_TENSORS] = {
    {.name = "model.a", .dtype = DT_F32, .ndim = 2, .shape = {7, 11}},
    {.name = "model.empty", .dtype = DT_I64, .ndim = 1, .shape = {0}},
    {.name = "optim.m.a", .dtype = DT_F32, .ndim = 2, .shape = {7, 11}},
    {.name = "optim.v.a", .dtype = DT_BF16, .ndim = 1, .shape = {5}},
    {.name = "optim.step", .dtype = DT_I64},
};
static const CkptEntry entries[N_ENTRIES] = {{"step", "300"}, {"config", "run:\n  seed: 1\n"}};

/* The tensors' bytes, one behind the other, a function of seed. */
static unsigned char *make_bytes(const SafeTensor *list, int n, uint64_t seed, int64_t *total) {
    *total = 0;
    for (int i = 0; i < n; i++) *total += safetensors_count(&list[i]) * dtype_bytes(list[i].dtype);
    unsigned char *bytes = NEW(unsigned char, *total);
    for (int64_t i = 0; i < *total; i += 8) {
        uint64_t word = rng_u64(seed, rng_stream(RNG_TEST, 1), (uint64_t)i);
        memcpy(bytes + i, &word, (size_t)i64_min(8, *total - i));
    }
    return bytes;
}

/* Saves in pieces of about `cut` elements, given in a shuffled order. */
static Status save_pieces(const char *path, const SafeTensor *list, int n, uint64_t seed,
                          int64_t cut, int64_t *size) {
    int64_t total, at = 0, n_pieces = 0;
    unsigned char *bytes = make_bytes(list, n, seed, &total);
    CkptPiece *ordered = NEW(CkptPiece, 2 * total + n);
    for (int i = 0; i < n; i++) {
        int64_t count = safetensors_count(&list[i]);
        for (int64_t begin = 0; begin < count;) {
            int64_t len = i64_min(count - begin, 1 + (begin * 7 + cut) % (2 * cut));
            ordered[n_pieces++] =
                (CkptPiece){i, begin, len, bytes + at + begin * dtype_bytes(list[i].dtype)};
            begin += len;
        }
        at += count * dtype_bytes(list[i].dtype);
    }
    CkptPiece *pieces = NEW(CkptPiece, n_pieces);
    for (int64_t i = 0; i < n_pieces; i++)
        pieces[rng_permute((uint64_t)n_pieces, seed, rng_stream(RNG_TEST, 2), (uint64_t)i)] =
            ordered[i];
    Comm *self = comm_self_create();
    Status st =
        checkpoint_save(path, list, n, entries, N_ENTRIES, pieces, (int)n_pieces, self, size);
    comm_free(self);
    free(ordered);
    free(pieces);
    free(bytes);
    return st;
}

static Status save(const char *path, uint64_t seed) {
    int64_t size;
    return save_pieces(path, tensors, N_TENSORS, seed, 10, &size);
}

static Status verify(const char *path) {
    Checkpoint *ck;
    Status st = checkpoint_open(&ck, path);
    if (st == OK) st = checkpoint_verify(ck);
    checkpoint_close(ck);
    return st;
}

static char *read_file(const char *path, int64_t *n) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *n = ftell(file);
    rewind(file);
    char *bytes = NEW(char, *n);
    assert_int_equal(fread(bytes, 1, (size_t)*n, file), *n);
    fclose(file);
    return bytes;
}

static void write_file(const char *path, const void *bytes, int64_t n) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, (size_t)n, file), n);
    assert_int_equal(fclose(file), 0);
}

static bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

/* ---- a fresh directory per test ------------------------------------------------------------- */

static char dir[64], path[128], tmp[160];

static int set_up(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_checkpoint.XXXXXX");
    if (mkdtemp(dir) == NULL) return -1;
    snprintf(path, sizeof path, "%s/step_00000300.safetensors", dir);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    status_clear();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d)) != NULL;) unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    return rmdir(dir);
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void any_range_that_was_saved_is_read_back(void **state) {
    (void)state;
    int64_t size, total, at = 0, file_size;
    assert_status_ok(save_pieces(path, tensors, N_TENSORS, 1, 10, &size));
    assert_false(exists(tmp));
    free(read_file(path, &file_size));
    assert_int_equal(size, file_size);
    unsigned char *bytes = make_bytes(tensors, N_TENSORS, 1, &total), buf[512];
    Checkpoint *ck;
    assert_status_ok(checkpoint_open(&ck, path));
    assert_status_ok(checkpoint_verify(ck));
    assert_string_equal(checkpoint_entry(ck, "step"), "300");
    assert_string_equal(checkpoint_entry(ck, "config"), "run:\n  seed: 1\n");
    assert_string_equal(checkpoint_entry(ck, "format"), "pt");
    assert_null(checkpoint_entry(ck, "absent"));
    assert_int_equal(checkpoint_file(ck)->data_start % 64, 0);
    for (int i = 0; i < N_TENSORS; i++) {
        int64_t count = safetensors_count(&tensors[i]), bytes_each = dtype_bytes(tensors[i].dtype);
        for (int64_t begin = 0; begin <= count; begin++)
            for (int64_t end = begin; end <= count; end++) {
                memset(buf, 0xee, sizeof buf);
                assert_status_ok(checkpoint_read(ck, tensors[i].name, begin, end - begin, buf));
                int64_t n = (end - begin) * bytes_each;
                assert_memory_equal(buf, bytes + at + begin * bytes_each, n);
                assert_int_equal(buf[n], 0xee);
            }
        at += count * bytes_each;
    }
    assert_status_fails(checkpoint_read(ck, "model.b", 0, 1, buf), ERR_USER, "no tensor 'model.b'");
    assert_status_fails(checkpoint_read(ck, "model.a", 70, 8, buf), ERR_USER,
                        "'model.a' has 77 elements, 8 from 70 on were asked for");
    assert_status_fails(checkpoint_read(ck, "model.a", -1, 1, buf), ERR_USER, "1 from -1 on");
    assert_status_fails(checkpoint_read(ck, "model.a", 1, INT64_MAX, buf), ERR_USER, "77");
    checkpoint_close(ck);
    free(bytes);
}

/* One tensor spans several blocks of parallel work, and none of the pieces ends at a block. */
static void how_a_tensor_is_cut_does_not_show_in_the_file(void **state) {
    (void)state;
    static const SafeTensor list[] = {
        {.name = "small", .dtype = DT_BF16, .ndim = 1, .shape = {333}},
        {.name = "large", .dtype = DT_U8, .ndim = 2, .shape = {9, 1000003}}};
    static const int64_t cuts[] = {100000000, 9000000, 1000000, 54321};
    int64_t n, expected_n, size;
    char *expected = NULL;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        assert_status_ok(save_pieces(path, list, 2, 5, cuts[i], &size));
        assert_status_ok(verify(path));
        char *bytes = read_file(path, &n);
        if (expected == NULL) {
            expected = bytes;
            expected_n = n;
            continue;
        }
        assert_int_equal(n, expected_n);
        assert_int_equal(memcmp(bytes, expected, (size_t)n), 0);
        free(bytes);
    }
    free(expected);
}

static void every_flipped_bit_and_every_truncation_is_noticed(void **state) {
    (void)state;
    int64_t n;
    assert_status_ok(save(path, 1));
    char *bytes = read_file(path, &n);
    int fd = open(path, O_WRONLY);
    for (int64_t bit = 0; bit < 8 * n; bit++) {
        char flipped = (char)(bytes[bit / 8] ^ 1 << bit % 8);
        assert_int_equal(pwrite(fd, &flipped, 1, bit / 8), 1);
        if (verify(path) != ERR_USER || status_message()[0] == '\0')
            fail_msg("bit %d of byte %d of %d went unnoticed: \"%s\"", (int)(bit % 8),
                     (int)(bit / 8), (int)n, status_message());
        status_clear();
        assert_int_equal(pwrite(fd, &bytes[bit / 8], 1, bit / 8), 1);
    }
    assert_status_ok(verify(path));
    for (int64_t len = n - 1; len >= 0; len--) {
        assert_int_equal(ftruncate(fd, len), 0);
        if (verify(path) != ERR_USER) fail_msg("the first %d of %d bytes pass", (int)len, (int)n);
        status_clear();
    }
    close(fd);
    write_file(path, bytes, n);
    FILE *file = fopen(path, "ab");
    fputc(0, file);
    fclose(file);
    assert_status_fails(verify(path), ERR_USER, "followed by something else");
    free(bytes);
}

static void damage_is_reported_with_its_place(void **state) {
    (void)state;
    int64_t n;
    assert_status_ok(save(path, 1));
    char *bytes = read_file(path, &n);
    char where[64];
    bytes[n - 8 - 10 - 1] ^= 0x10; /* the last byte of optim.m.a */
    write_file(path, bytes, n);
    snprintf(where, sizeof where, "(bytes [%d, %d))", (int)(n - 18 - 4 * 77), (int)(n - 18));
    assert_status_fails(verify(path), ERR_USER, where);
    assert_status_fails(verify(path), ERR_USER, "damaged: tensor 'optim.m.a'");
    bytes[n - 8 - 10 - 1] ^= 0x10;
    char *step = strstr(bytes + 8, "\"step\":\"3");
    assert_non_null(step);
    step[8] = '4';
    write_file(path, bytes, n);
    assert_status_fails(verify(path), ERR_USER, "damaged: its header");
    write_file(path, bytes, n / 2);
    assert_status_fails(verify(path), ERR_USER, "cut short");
    assert_status_fails(verify("/no/such/file"), ERR_USER, "cannot open /no/such/file");
    free(bytes);
}

static void files_of_others_can_be_read_but_not_verified(void **state) {
    (void)state;
    char foreign[8 + 64 + 4 + 1];
    int n = snprintf(foreign, sizeof foreign, "%c%7s%-64s%c%3s", 64, "",
                     "{\"a\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 42, "");
    memset(foreign + 1, 0, 7);
    memset(foreign + n - 3, 0, 3);
    write_file(path, foreign, n);
    Checkpoint *ck;
    int32_t value = 0;
    assert_status_ok(checkpoint_open(&ck, path));
    assert_status_ok(checkpoint_read(ck, "a", 0, 1, &value));
    assert_int_equal(value, 42);
    assert_status_fails(checkpoint_verify(ck), ERR_USER, "no checksums");
    checkpoint_close(ck);
}

/* The old checkpoint's bytes are still there and nothing else is. */
static void assert_only(const char *expected, int64_t expected_n) {
    int64_t n;
    char *bytes = read_file(path, &n);
    assert_int_equal(n, expected_n);
    assert_memory_equal(bytes, expected, (size_t)n);
    free(bytes);
    assert_false(exists(tmp));
}

static void a_save_that_fails_leaves_the_old_file(void **state) {
    (void)state;
    int64_t n, size;
    assert_status_ok(save(path, 1));
    char *old = read_file(path, &n);

    struct rlimit limit, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = (struct rlimit){.rlim_cur = (rlim_t)n - 1, .rlim_max = limit.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    Status st = save(path, 2);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    signal(SIGXFSZ, handler);
    assert_status_fails(st, ERR_ENV, "File too large");
    assert_only(old, n);

    SafeTensor huge = {.name = "huge", .dtype = DT_F32, .ndim = 1, .shape = {1LL << 50}};
    Comm *self = comm_self_create();
    assert_status_fails(checkpoint_save(path, &huge, 1, NULL, 0, NULL, 0, self, &size), ERR_ENV,
                        "it needs 4503599627370");
    assert_only(old, n);

    CkptEntry twice = {"format", "tf"};
    assert_status_fails(checkpoint_save(path, NULL, 0, &twice, 1, NULL, 0, self, &size), ERR_USER,
                        "'format' appears twice");
    assert_only(old, n);

    CkptSave *given_up; /* as by a run that ends in the middle of a save */
    const CkptPiece piece = {.tensor = 3, .count = 2, .data = "1234"};
    assert_status_ok(
        checkpoint_begin(&given_up, path, tensors, N_TENSORS, entries, N_ENTRIES, self));
    assert_status_ok(checkpoint_write(given_up, &piece));
    assert_true(exists(tmp));
    checkpoint_end(given_up);
    assert_only(old, n);
    comm_free(self);

    assert_status_fails(save("/no/such/dir/x.safetensors", 1), ERR_ENV, "No such file");
    assert_int_equal(mkdir(tmp, 0777), 0);
    assert_status_fails(save(path, 2), ERR_ENV, "Is a directory");
    assert_int_equal(rmdir(tmp), 0);
    assert_only(old, n);

    write_file(tmp, "left by a killed run", 20);
    assert_status_ok(save(path, 2));
    assert_false(exists(tmp));
    assert_status_ok(verify(path));
    free(old);
}

static void an_entry_gets_the_crc_of_all_weights(void **state) {
    (void)state;
    static const SafeTensor list[] = {
        {.name = "model.a", .dtype = DT_U8, .ndim = 1, .shape = {5}},
        {.name = "optim.m.a", .dtype = DT_U8, .ndim = 1, .shape = {2}},
        {.name = "model.b", .dtype = DT_U8, .ndim = 1, .shape = {4}}};
    const CkptPiece pieces[] = {
        {0, 0, 3, "123"}, {0, 3, 2, "45"}, {1, 0, 2, "xy"}, {2, 0, 4, "6789"}};
    const CkptEntry asked = {"weights", NULL};
    int64_t size;
    Comm *self = comm_self_create();
    Checkpoint *ck;
    assert_status_ok(checkpoint_save(path, list, 3, &asked, 1, pieces, 4, self, &size));
    assert_status_ok(checkpoint_open(&ck, path));
    assert_status_ok(checkpoint_verify(ck));
    assert_string_equal(checkpoint_entry(ck, "weights"), "cbf43926"); /* CRC-32's check value */
    checkpoint_close(ck);
    comm_free(self);
}

static void an_empty_checkpoint_is_one_too(void **state) {
    (void)state;
    int64_t size;
    Comm *self = comm_self_create();
    assert_status_ok(checkpoint_save(path, NULL, 0, NULL, 0, NULL, 0, self, &size));
    assert_status_ok(verify(path));
    comm_free(self);
}

static void save_step(int64_t step) {
    char *p = checkpoint_path(dir, step);
    assert_status_ok(save(p, (uint64_t)step));
    free(p);
}

static void damage_step(int64_t step, int64_t at) {
    int64_t n;
    char *p = checkpoint_path(dir, step), *bytes = read_file(p, &n);
    bytes[at < 0 ? n + at : at] ^= 1;
    write_file(p, bytes, n);
    free(bytes);
    free(p);
}

static void touch(const char *name) {
    char *p = mem_printf("%s/%s", dir, name);
    write_file(p, "x", 1);
    free(p);
}

static void assert_listed(const char *expected) {
    StrBuf text = {0};
    int64_t *steps, n;
    assert_status_ok(checkpoint_list(dir, &steps, &n));
    for (int64_t i = 0; i < n; i++) strbuf_printf(&text, "%d ", (int)steps[i]);
    assert_string_equal(strbuf_text(&text), expected);
    strbuf_free(&text);
    free(steps);
}

static void checkpoints_are_listed_by_their_steps(void **state) {
    (void)state;
    int64_t *steps, n, step;
    assert_status_ok(checkpoint_list("/no/such/dir", &steps, &n));
    assert_int_equal(n, 0);
    free(steps);
    assert_listed("");
    touch("step_00000099.safetensors");
    touch("step_00000100.safetensors");
    touch("step_123456789.safetensors"); /* nine digits: newer than any of eight */
    touch("step_99999999.safetensors");
    touch("step_123456790.safetensors.tmp");
    touch("step_999.safetensors"); /* not a name that is given */
    touch("step_00000999.safetensors.bak");
    touch("final.safetensors");
    assert_listed("123456789 99999999 100 99 ");
    assert_true(checkpoint_path_step("a/b/step_00000007.safetensors", &step));
    assert_int_equal(step, 7);
    assert_true(checkpoint_path_step("step_123456789.safetensors", &step));
    assert_false(checkpoint_path_step("step_7.safetensors", &step));
    assert_false(checkpoint_path_step("step_00000007.safetensors/final", &step));
    assert_false(checkpoint_path_step("step_00000007.safetensors.tmp", &step));
}

/* Whether checkpoint_open_valid() takes the file, or why it is passed over. */
static void assert_passed_over(const char *file, const char *why) {
    Checkpoint *ck;
    StrBuf skipped = {0};
    assert_status_ok(checkpoint_open_valid(&ck, file, &skipped));
    assert_int_equal(ck == NULL, why != NULL);
    if (strstr(strbuf_text(&skipped), why != NULL ? why : "") == NULL)
        fail_msg("\"%s\" should contain \"%s\"", strbuf_text(&skipped), why);
    assert_string_equal(status_message(), "");
    checkpoint_close(ck);
    strbuf_free(&skipped);
}

static void damaged_headers_are_passed_over(void **state) {
    (void)state;
    save_step(300);
    assert_passed_over(path, NULL);
    damage_step(300, -1); /* of a tensor, which is for others to find */
    assert_passed_over(path, NULL);
    damage_step(300, 100);
    assert_passed_over(path, "step_00000300.safetensors");
    damage_step(300, 0);
    assert_passed_over(path, "step_00000300.safetensors: not a safetensors");
}

/* The steps that are left, and names that are none, in order. */
static void assert_left(const char *expected) {
    StrBuf left = {0};
    struct dirent **names;
    int n = scandir(dir, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        if (names[i]->d_name[0] != '.') strbuf_printf(&left, "%.13s ", names[i]->d_name);
        free(names[i]);
    }
    free(names);
    assert_string_equal(strbuf_text(&left), expected);
    strbuf_free(&left);
}

static void pruning_keeps_the_newest_and_those_in_use(void **state) {
    (void)state;
    for (int64_t step = 1; step <= 6; step++) save_step(step);
    touch("other.file");
    touch("step_00000006.safetensors.tmp");
    assert_status_ok(checkpoint_prune(dir, 0, NULL, 0));
    assert_left("other.file step_00000001 step_00000002 step_00000003 step_00000004 "
                "step_00000005 step_00000006 ");
    touch("step_00000006.safetensors"); /* no checkpoint: does not count, is not deleted */
    const int64_t in_use[] = {7777, 2};
    assert_status_ok(checkpoint_prune(dir, 2, in_use, 2));
    assert_left("other.file step_00000002 step_00000004 step_00000005 step_00000006 ");
    assert_status_ok(checkpoint_prune(dir, 1, NULL, 0));
    assert_left("other.file step_00000005 step_00000006 ");
    assert_status_ok(checkpoint_prune("/no/such/dir", 1, NULL, 0));
}

/* The names in the folder, in order, each behind a blank. */
static void assert_names(const char *expected) {
    StrBuf names = {0};
    struct dirent **entries_found;
    int n = scandir(dir, &entries_found, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        if (entries_found[i]->d_name[0] != '.')
            strbuf_printf(&names, " %s", entries_found[i]->d_name);
        free(entries_found[i]);
    }
    free(entries_found);
    assert_string_equal(strbuf_text(&names), expected);
    strbuf_free(&names);
}

static void going_back_abandons_what_is_newer(void **state) {
    (void)state;
    StrBuf names = {0};
    for (int64_t step = 1; step <= 4; step++) save_step(step);
    assert_status_ok(checkpoint_abandon_after(dir, 4, &names));
    assert_string_equal(strbuf_text(&names), "");
    touch("step_00000004.safetensors.abandoned"); /* of an earlier time; it is not replaced */
    assert_status_ok(checkpoint_abandon_after(dir, 2, &names));
    assert_string_equal(strbuf_text(&names), "step_00000004.safetensors.abandoned.2\n"
                                             "step_00000003.safetensors.abandoned\n");
    assert_names(" step_00000001.safetensors step_00000002.safetensors"
                 " step_00000003.safetensors.abandoned step_00000004.safetensors.abandoned"
                 " step_00000004.safetensors.abandoned.2");
    assert_listed("2 1 ");
    save_step(3);
    assert_status_ok(checkpoint_prune(dir, 2, NULL, 0)); /* abandoned ones neither count nor go */
    assert_names(" step_00000002.safetensors step_00000003.safetensors"
                 " step_00000003.safetensors.abandoned step_00000004.safetensors.abandoned"
                 " step_00000004.safetensors.abandoned.2");
    strbuf_free(&names);
}

/* As a crash leaves it between the first and the last rename. */
static void abandoning_that_was_interrupted_holds(void **state) {
    (void)state;
    StrBuf names = {0};
    char *marker = mem_printf("%s/abandon_after", dir);
    for (int64_t step = 1; step <= 4; step++) save_step(step);
    write_file(marker, "2\n", 2);
    assert_listed("2 1 ");
    assert_status_ok(checkpoint_abandon_after(dir, 2, &names));
    assert_names(" step_00000001.safetensors step_00000002.safetensors"
                 " step_00000003.safetensors.abandoned step_00000004.safetensors.abandoned");
    save_step(3);
    save_step(4);
    write_file(marker, "2\n", 2);
    assert_status_ok(
        checkpoint_abandon_after(dir, 3, &names)); /* a run that goes on from there after all */
    assert_listed("3 2 1 ");
    assert_false(exists(marker));
    write_file(marker, "2", 1);
    int64_t *steps, n;
    assert_status_fails(checkpoint_list(dir, &steps, &n), ERR_USER, "abandon_after does not hold");
    unlink(marker);
    free(marker);
    strbuf_free(&names);
}

static void what_is_no_file_is_no_checkpoint(void **state) {
    (void)state;
    int64_t *steps, n;
    assert_int_equal(mkfifo(path, 0666), 0);
    assert_status_fails(verify(path), ERR_USER, "is not a regular file");
    assert_passed_over(path, "is not a regular file");
    unlink(path);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_status_fails(verify(path), ERR_USER, "is a folder");
    assert_passed_over(path, "is a folder");
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(symlink("nowhere", path), 0);
    assert_passed_over(path, "No such file or directory");
    unlink(path);
    assert_status_ok(save(path, 1));
    assert_status_fails(checkpoint_list(path, &steps, &n), ERR_USER, "Not a directory");
}

static void a_checkpoint_is_described_for_people(void **state) {
    (void)state;
    assert_status_ok(save(path, 1));
    Checkpoint *ck;
    StrBuf text = {0};
    assert_status_ok(checkpoint_open(&ck, path));
    checkpoint_describe(ck, &text);
    assert_non_null(strstr(text.text, "5 of 5 tensors have one, not compared"));
    strbuf_free(&text);
    assert_status_ok(checkpoint_verify(ck));
    checkpoint_describe(ck, &text);
    static const char *const parts[] = {path,
                                        "written 20",
                                        "weights               2 tensors               77 elements",
                                        "308 bytes F32 I64",
                                        "first moments         1 tensors",
                                        "second moments        1 tensors",
                                        "10 bytes BF16",
                                        "other state           1 tensors",
                                        "step             300\n",
                                        "config           (15 bytes)\n",
                                        "5 of 5 tensors have one, all match"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(text.text, parts[i]) == NULL)
            fail_msg("\"%s\" is missing in\n%s", parts[i], text.text);
    strbuf_free(&text);
    checkpoint_close(ck);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(any_range_that_was_saved_is_read_back),
        TEST(how_a_tensor_is_cut_does_not_show_in_the_file),
        TEST(every_flipped_bit_and_every_truncation_is_noticed),
        TEST(damage_is_reported_with_its_place),
        TEST(files_of_others_can_be_read_but_not_verified),
        TEST(a_save_that_fails_leaves_the_old_file),
        TEST(an_entry_gets_the_crc_of_all_weights),
        TEST(an_empty_checkpoint_is_one_too),
        TEST(checkpoints_are_listed_by_their_steps),
        TEST(damaged_headers_are_passed_over),
        TEST(pruning_keeps_the_newest_and_those_in_use),
        TEST(going_back_abandons_what_is_newer),
        TEST(abandoning_that_was_interrupted_holds),
        TEST(what_is_no_file_is_no_checkpoint),
        TEST(a_checkpoint_is_described_for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
