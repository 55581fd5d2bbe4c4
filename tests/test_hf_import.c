/* Hugging Face directories as they are met: weights of 16 bits, buffers of any type, heads that are
 * stored twice, weights that are not finite, and files that are something else. */
#include "hf_dir.h"

#include <math.h>
#include <zlib.h>

#include "ckpt/checkpoint.h"
#include "model/params.h"

/* ---- a small model in one file, of any type ---------------------------------------------------
 */

static const char config_json[] =
    "{\"model_type\": \"llama\", \"num_hidden_layers\": 1, \"hidden_size\": 16, "
    "\"num_attention_heads\": 2, \"intermediate_size\": 16, \"vocab_size\": 4096, "
    "\"max_position_embeddings\": 64, \"tie_word_embeddings\": true}";
enum { VOCAB = 4096, HIDDEN = 16, EMBEDDING = VOCAB * HIDDEN };

/* In a header: another type and shape of the one tensor of 6 times U8. */
static void retype(StrBuf *header, const char *text) {
    static const char old[] = "\"U8\",\"shape\":[6]";
    const char *at = strstr(header->text + 8, old);
    assert_non_null(at);
    StrBuf b = {0};
    strbuf_append(&b, header->text, (size_t)(at - header->text));
    strbuf_printf(&b, "%s%s", text, at + sizeof old - 1);
    for (int i = 0; i < 8; i++) b.text[i] = (char)((b.len - 8) >> (8 * i) & 0xff);
    strbuf_free(header);
    *header = b;
}

/* `embedding` has bytes for 65,536 elements of `dtype`, `head` as many or is NULL; the other
 * weights are 0. An unused buffer of type `type` and 6 bytes is added where `type` is not NULL. */
static void write_model(Dtype dtype, const void *embedding, const void *head, const char *buffer) {
    Config c;
    HfExtra extra;
    assert_status_ok(hf_config_parse(&c, &extra, "", config_json, sizeof config_json - 1));
    ParamTable *table = param_table_create(&c.model, 1);
    int n = 0;
    SafeTensor *list = NEW(SafeTensor, table->n_params + 2);
    for (int i = 0; i < table->n_params; i++) {
        Param *p = &table->params[i];
        list[n++] = (SafeTensor){
            .name = p->name, .dtype = dtype, .ndim = p->ndim, .shape = {p->rows, p->cols}};
    }
    int at = table->embed, repeated = n;
    if (head != NULL)
        list[n++] = (SafeTensor){
            .name = "lm_head.weight", .dtype = dtype, .ndim = 2, .shape = {VOCAB, HIDDEN}};
    if (buffer != NULL)
        list[n++] = (SafeTensor){.name = "model.layers.0.self_attn.rotary_emb.inv_freq",
                                 .dtype = DT_U8,
                                 .ndim = 1,
                                 .shape = {6}};
    StrBuf file = {0};
    safetensors_layout(list, n);
    safetensors_header(&file, list, n, NULL, 0);
    if (buffer != NULL) retype(&file, buffer);
    size_t start = file.len;
    for (int64_t bytes = list[n - 1].end; bytes > 0; bytes--) strbuf_append(&file, "", 1);
    memcpy(file.text + start + list[at].begin, embedding, (size_t)(EMBEDDING * dtype_bytes(dtype)));
    if (head != NULL)
        memcpy(file.text + start + list[repeated].begin, head,
               (size_t)(EMBEDDING * dtype_bytes(dtype)));
    if (!exists(hf)) assert_int_equal(mkdir(hf, 0777), 0);
    write_file(hf, "config.json", config_json, sizeof config_json - 1);
    write_file(hf, "model.safetensors", file.text, file.len);
    if (exists(ckpt)) assert_int_equal(unlink(ckpt), 0);
    strbuf_free(&file);
    free(list);
    param_table_free(table);
    config_free(&c);
}

static void read_weights(const char *name, void *out, int64_t n) {
    Checkpoint *ck;
    assert_status_ok(checkpoint_open(&ck, ckpt));
    assert_status_ok(checkpoint_verify(ck));
    assert_status_ok(checkpoint_read(ck, name, 0, n, out));
    checkpoint_close(ck);
}

/* ---- weights of 16 bits -----------------------------------------------------------------------
 */

static void every_fp16_becomes_the_fp32_that_numpy_makes_of_it(void **state) {
    (void)state;
    static const struct {
        uint16_t from;
        uint32_t to;
    } cases[] = {{0x0000, 0x00000000}, {0x8000, 0x80000000}, {0x0001, 0x33800000},
                 {0x8001, 0xb3800000}, {0x03ff, 0x387fc000}, {0x0400, 0x38800000},
                 {0x3555, 0x3eaaa000}, {0x3c00, 0x3f800000}, {0xc000, 0xc0000000},
                 {0x7bff, 0x477fe000}, {0x7c00, 0x7f800000}, {0xfc00, 0xff800000},
                 {0x7e00, 0x7fc00000}, {0xfe01, 0xffc02000}};
    uint16_t *halves = NEW(uint16_t, EMBEDDING);
    uint32_t *found = NEW(uint32_t, EMBEDDING);
    for (int i = 0; i < EMBEDDING; i++) halves[i] = (uint16_t)i;
    write_model(DT_F16, halves, NULL, NULL);
    expect_output(2,
                  "2048 of 65536 values of tensor model.embed_tokens.weight are NaN or infinite, "
                  "the first at row 1984, column 0",
                  assert_status_ok(hf_import(hf, ckpt)));
    read_weights("model.embed_tokens.weight", found, EMBEDDING);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (found[cases[i].from] != cases[i].to)
            fail_msg("%04x became %08x, expected %08x", cases[i].from, found[cases[i].from],
                     cases[i].to);
    /* x = numpy.arange(65536, dtype='u2').view('f2').astype('f4').view('u4')
     * x[numpy.isnan(x.view('f4'))] = 0x7fc00000; zlib.crc32(x.tobytes()) */
    for (int i = 0; i < EMBEDDING; i++) {
        float x;
        memcpy(&x, &found[i], sizeof x);
        if (isnan(x)) found[i] = 0x7fc00000;
    }
    assert_int_equal(crc32(0, (const Bytef *)found, EMBEDDING * sizeof *found), 0x3020c7a7);
    free(halves), free(found);
}

static void buffers_that_are_not_read_may_be_of_any_type(void **state) {
    (void)state;
    static const char *const types[] = {
        "\"F16\",\"shape\":[3]",     "\"BF16\",\"shape\":[3]",    "\"I16\",\"shape\":[3]",
        "\"BOOL\",\"shape\":[6]",    "\"F8_E4M3\",\"shape\":[6]", "\"I8\",\"shape\":[2,3]",
        "\"F6_E2M3\",\"shape\":[8]", "\"F4\",\"shape\":[12]",     "\"TO_COME\",\"shape\":[1]"};
    uint16_t *weights = NEW(uint16_t, EMBEDDING);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        write_model(DT_BF16, weights, NULL, types[i]);
        assert_status_ok(hf_import(hf, ckpt));
    }
    free(weights);
}

/* ---- tied heads that are stored, too ----------------------------------------------------------
 */

static void a_tied_model_may_repeat_its_embedding_as_head(void **state) {
    (void)state;
    static const Dtype types[] = {DT_F32, DT_BF16, DT_F16};
    for (int i = 0; i < 3; i++) {
        int64_t bytes = EMBEDDING * dtype_bytes(types[i]);
        unsigned char *weights = NEW(unsigned char, bytes), *head = NEW(unsigned char, bytes);
        for (int64_t k = 0; k < bytes; k++) weights[k] = head[k] = (unsigned char)(k * 7 % 59);
        write_model(types[i], weights, head, NULL);
        expect_output(2, NULL, assert_status_ok(hf_import(hf, ckpt)));
        head[bytes - 1] ^= 1;
        write_model(types[i], weights, head, NULL);
        assert_status_fails(hf_import(hf, ckpt), ERR_USER,
                            "tie_word_embeddings is true, but lm_head.weight is not "
                            "model.embed_tokens.weight; remove lm_head.weight, or");
        assert_false(exists(ckpt));
        free(weights), free(head);
    }
}

/* ---- files that are something else ------------------------------------------------------------
 */

static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:"
                              "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
                              "size 12345\n";

static void write_pointer(const char *name) {
    write_file(hf, name, pointer, sizeof pointer - 1);
}

static void a_git_lfs_pointer_is_named(void **state) {
    (void)state;
    static const char expected[] = "is a Git LFS pointer, not the file itself: run `git lfs pull`";
    copy_golden("hf_untied");
    write_pointer("model.safetensors");
    assert_status_fails(hf_import(hf, ckpt), ERR_USER, expected);
    write_pointer("config.json");
    assert_status_fails(hf_import(hf, ckpt), ERR_USER, expected);
    copy_golden("hf_tied");
    write_pointer("model.safetensors.index.json");
    assert_status_fails(hf_import(hf, ckpt), ERR_USER, expected);
    write_pointer("tokenizer.json");
    import_golden(0);
    const HfExportOptions o = {.dtype = DT_BF16, .shard_bytes = HF_SHARD_BYTES, .tokenizer = hf};
    assert_status_fails(hf_export(ckpt, out, &o), ERR_USER, expected);
    assert_false(exists(out));
}

static void weights_of_another_form_are_named(void **state) {
    (void)state;
    static const struct {
        const char *name, *says;
    } cases[] = {{"pytorch_model.bin", "has its weights in pytorch_model.bin, cria reads "
                                       "safetensors; convert it: python3 -c '"},
                 {"pytorch_model.bin.index.json", "in pytorch_model.bin.index.json, cria reads"},
                 {"consolidated.00.pth", "convert_llama_weights_to_hf.py"},
                 {"adapter_model.safetensors", "holds an adapter (LoRA), not a model"}};
    char *weights = mem_printf("%s/model.safetensors", hf);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        copy_golden("hf_untied");
        assert_int_equal(unlink(weights), 0);
        write_file(hf, cases[i].name, "", 0);
        assert_status_fails(hf_import(hf, ckpt), ERR_USER, cases[i].says);
    }
    free(weights);
}

/* A FIFO would block who opens it, /dev/zero never ends. */
static void what_is_not_a_file_is_refused(void **state) {
    (void)state;
    static const char *const names[] = {"config.json", "model.safetensors",
                                        "model.safetensors.index.json"};
    static const char *const targets[] = {"/dev/zero", "/"};
    for (int i = 0; i < 3; i++) {
        copy_golden(i == 2 ? "hf_tied" : "hf_untied");
        char *path = mem_printf("%s/%s", hf, names[i]);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(mkfifo(path, 0666), 0);
        assert_status_fails(hf_import(hf, ckpt), ERR_USER, ", expected a ");
        for (int k = 0; k < 2; k++) {
            assert_int_equal(unlink(path), 0);
            assert_int_equal(symlink(targets[k], path), 0);
            assert_status_fails(hf_import(hf, ckpt), ERR_USER, ", expected a ");
        }
        free(path);
    }
    import_golden(0);
    char *fifo = mem_printf("%s/tokenizer.json", hf);
    assert_int_equal(mkfifo(fifo, 0666), 0);
    const HfExportOptions o = {.dtype = DT_BF16, .shard_bytes = HF_SHARD_BYTES, .tokenizer = fifo};
    assert_status_fails(hf_export(ckpt, out, &o), ERR_USER, "is not a regular file");
    free(fifo);
}

/* ---- what was found ---------------------------------------------------------------------------
 */

static void the_model_is_printed_as_a_section_to_paste(void **state) {
    (void)state;
    char *ckpt2 = mem_printf("%s/again", dir);
    expect_output(1, "\nmodel:\n  layers: 2\n  hidden: 40\n  heads: 4\n  kv_heads: 2\n",
                  assert_status_ok(hf_import("tests/golden/hf_untied", ckpt)));
    expect_output(1,
                  "    factor: 8\n    low: 1\n    high: 4\n    original: 64\n# Set data.eod: 72,",
                  assert_status_ok(hf_import("tests/golden/hf_untied", ckpt2)));
    free(ckpt2);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(every_fp16_becomes_the_fp32_that_numpy_makes_of_it),
        TEST(buffers_that_are_not_read_may_be_of_any_type),
        TEST(a_tied_model_may_repeat_its_embedding_as_head),
        TEST(a_git_lfs_pointer_is_named),
        TEST(weights_of_another_form_are_named),
        TEST(what_is_not_a_file_is_refused),
        TEST(the_model_is_printed_as_a_section_to_paste),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
