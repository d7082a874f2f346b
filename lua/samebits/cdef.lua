-- Generated from src/samebits.h by tools/gen_cdef.lua: do not edit.

local ffi = require "ffi"

-- A struct may be declared only once in a Lua state, this file may be run again.
if not pcall(ffi.typeof, "sb_context") then
  ffi.cdef [[
typedef enum sb_status {
    SB_OK = 0,
    SB_ERR_ARGUMENT = 1,
    SB_ERR_SHAPE = 2,
    SB_ERR_DTYPE = 3,
    SB_ERR_ID = 4,
    SB_ERR_TEMPERATURE = 5,
    SB_ERR_ABI = 6,
    SB_ERR_BACKEND = 7,
    SB_ERR_MEMORY = 8,
    SB_ERR_SYSTEM = 9,
    SB_ERR_DEVICE = 10,
    SB_ERR_STATE = 11,
    SB_ERR_BUSY = 12
} sb_status;

typedef enum sb_dtype {
    SB_F32 = 1,
    SB_F16 = 2,
    SB_BF16 = 3,
    SB_I32 = 4,
    SB_I64 = 5
} sb_dtype;

typedef struct sb_context sb_context;

typedef struct sb_open_options {
    uint32_t size;
    int32_t threads;
    const char *isa;
} sb_open_options;

sb_status sb_open(sb_context **ctx, uint32_t abi, const char *backend,
                         const sb_open_options *options, char *why, size_t why_size);

typedef struct sb_batch {
    uint32_t size;
    int32_t logits_dtype;
    const void *logits;
    int64_t batch;
    int64_t time;
    int64_t rows;
    int64_t vocab;
    int64_t row_stride;
    int64_t batch_stride;
    const void *cu_seqlens;
    const void *ids;
    const uint8_t *mask;
    const float *temperatures;
    const int64_t *row_list;
    int64_t row_count;
    int64_t ignore_index;
    int32_t cu_seqlens_dtype;
    int32_t ids_dtype;
    float temperature;
    int32_t shift;
    const uint32_t *kept;
    int64_t kept_stride;
    const void *kept_ids;
    const void *kept_offsets;
    int64_t kept_count;
    int32_t kept_ids_dtype;
    int32_t kept_offsets_dtype;
    const struct sb_head *head;
    const void *hidden;
    int64_t hidden_width;
    int64_t hidden_row_stride;
    int64_t hidden_batch_stride;
    int32_t hidden_dtype;
    int32_t hidden_reserved;
} sb_batch;

typedef struct sb_saved_row {
    uint32_t kind;
    uint32_t c;
    int32_t e;
    uint32_t best;
    double g;
    double h2;
} sb_saved_row;

typedef struct sb_logprob_out {
    uint32_t size;
    uint32_t reserved;
    float *token;
    float *lse;
    float *sequence;
    int64_t *count;
    int64_t *outside;
    float *entropy;
    sb_saved_row *saved;
    const struct sb_gradient *gradient;
} sb_logprob_out;

typedef struct sb_launch {
    uint32_t size;
    int32_t split;
    int32_t threads;
    int32_t check;
    void *stream;
    void *workspace;
    uint64_t workspace_size;
    uint64_t *needed;
    int32_t cluster;
    int32_t timeout;
    int32_t table;
    int32_t one_read;
} sb_launch;

sb_status sb_logprob(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                            const sb_launch *launch);

const char *sb_last_error(const sb_context *ctx);

void sb_close(sb_context *ctx);

const char *sb_version(void);
uint32_t sb_abi(void);
uint32_t sb_numerics(void);

const char *sb_status_name(sb_status status);
const char *sb_status_text(sb_status status);

const char *sb_backend_name(int32_t index);

sb_status sb_probe(const char *backend, char *why, size_t why_size);

const char *sb_context_backend(const sb_context *ctx);
const char *sb_context_isa(const sb_context *ctx);
int32_t sb_context_threads(const sb_context *ctx);

const char *sb_last_plan(const sb_context *ctx);

typedef struct sb_ids_out {
    uint32_t size;
    uint32_t reserved;
    float *logprob;
    int32_t *rank;
    float *lse;
} sb_ids_out;

sb_status sb_logprob_ids(sb_context *ctx, const sb_ids_out *out, const sb_batch *batch,
                                int64_t k, const sb_launch *launch);

typedef struct sb_topk_out {
    uint32_t size;
    uint32_t reserved;
    int32_t *ids;
    float *logprob;
    float *lse;
} sb_topk_out;

sb_status sb_topk(sb_context *ctx, const sb_topk_out *out, const sb_batch *batch, int64_t k,
                         const sb_launch *launch);

sb_status sb_kept_words(sb_context *ctx, uint32_t *kept, int64_t kept_stride,
                               const sb_batch *batch);

sb_status sb_kept_lists(sb_context *ctx, void *offsets, int32_t offsets_dtype, void *ids,
                               int32_t ids_dtype, int64_t room, const sb_batch *batch);

typedef struct sb_sampling {
    uint32_t size;
    int32_t top_k;
    float top_p;
    float min_p;
    const int32_t *top_ks;
    const float *top_ps;
    const float *min_ps;
    uint64_t seed;
    uint64_t stream;
    uint64_t position;
    const uint64_t *seeds;
    const uint64_t *streams;
    const uint64_t *positions;
    const double *u;
    const uint64_t *bits;
} sb_sampling;

typedef struct sb_sample_out {
    uint32_t size;
    uint32_t reserved;
    int32_t *token;
    float *logprob;
    float *kept_logprob;
    int32_t *count;
    uint32_t *kept;
} sb_sample_out;

sb_status sb_sample(sb_context *ctx, const sb_sample_out *out, const sb_batch *batch,
                           const sb_sampling *how, const sb_launch *launch);

typedef struct sb_gradient {
    uint32_t size;
    int32_t dtype;
    void *grad;
    int64_t width;
    int64_t row_stride;
    int64_t batch_stride;
    const sb_saved_row *saved;
    const float *token;
    const float *entropy;
    int64_t first, held;
    const struct sb_policy *policy;
    const struct sb_policy_out *policy_out;
} sb_gradient;

sb_status sb_logprob_backward(sb_context *ctx, const sb_gradient *gradient,
                                     const sb_batch *batch, const sb_launch *launch);

typedef struct sb_state_record {
    uint32_t J;
    uint32_t c;
    uint64_t l[3];
} sb_state_record;

typedef struct sb_moment_record {
    sb_state_record sum;
    int64_t g[3];
    uint32_t best;
    uint32_t reserved;
} sb_moment_record;

typedef struct sb_target_record {
    uint32_t x;
    uint32_t owners;
} sb_target_record;

typedef enum sb_record_kind {
    SB_SUMS = 1,
    SB_MOMENTS = 2
} sb_record_kind;

typedef struct sb_records {
    uint32_t size;
    int32_t kind;
    void *states;
    sb_target_record *targets;
} sb_records;

sb_status sb_partial(sb_context *ctx, const sb_records *records, const sb_batch *batch,
                            int64_t first, int64_t n, const sb_launch *launch);

sb_status sb_merge(sb_context *ctx, const sb_records *records, const sb_records *from,
                          int64_t shards, int64_t rows, const sb_launch *launch);

sb_status sb_finish(sb_context *ctx, const sb_logprob_out *out, const sb_batch *batch,
                           const sb_records *records, const sb_launch *launch);

typedef struct sb_draw {
    uint32_t size;
    int32_t shard;
    int32_t shards;
    int32_t rounds;
    int64_t first, n;
    int64_t bytes[12];
    void *progress;
    uint32_t outputs;
    uint32_t reserved;
} sb_draw;

sb_status sb_draw_plan(sb_context *ctx, sb_draw *draw, const sb_sample_out *out,
                              const sb_batch *batch, const sb_sampling *how);

sb_status sb_draw_round(sb_context *ctx, void *mine, const void *all, const sb_draw *draw,
                               int32_t round, const sb_batch *batch, const sb_sampling *how,
                               const sb_launch *launch);

sb_status sb_draw_finish(sb_context *ctx, const sb_sample_out *out, const void *all,
                                const sb_draw *draw, const sb_batch *batch,
                                const sb_sampling *how, const sb_launch *launch);

typedef struct sb_comm_id {
    char bytes[128];
} sb_comm_id;

sb_status sb_comm_new_id(sb_context *ctx, sb_comm_id *id);

sb_status sb_comm_create(sb_context *ctx, void **comm, const sb_comm_id *id, int32_t ranks,
                                int32_t rank);

sb_status sb_comm_destroy(sb_context *ctx, void *comm);

sb_status sb_comm_abort(sb_context *ctx, void *comm);

sb_status sb_exchange(sb_context *ctx, const sb_records *records, int64_t rows, void *comm,
                             const sb_launch *launch);

sb_status sb_all_gather(sb_context *ctx, void *all, const void *mine, int64_t bytes,
                               void *comm, const sb_launch *launch);

typedef enum sb_reduction {
    SB_ADD = 1,
    SB_MAX = 2
} sb_reduction;

sb_status sb_all_reduce(sb_context *ctx, void *values, int32_t dtype, int64_t count,
                               int32_t reduction, void *comm, const sb_launch *launch);

typedef struct sb_compare_out {
    uint32_t size;
    uint32_t reserved;
    float *ratio;
    float *k1;
    float *k2;
    float *k3;
} sb_compare_out;

sb_status sb_compare(sb_context *ctx, const sb_compare_out *out, const float *sampled,
                            const float *other, int64_t count, const sb_launch *launch);

typedef struct sb_values {
    uint32_t size;
    int32_t cu_seqlens_dtype;
    const float *values;
    const float *minus;
    const uint8_t *mask;
    int64_t batch;
    int64_t time;
    int64_t rows;
    const void *cu_seqlens;
} sb_values;

typedef struct sb_sums_out {
    uint32_t size;
    uint32_t reserved;
    float *sum;
    float *mean;
    float *exp_mean;
    int64_t *count;
} sb_sums_out;

sb_status sb_sums(sb_context *ctx, const sb_sums_out *out, const sb_values *values,
                           const sb_launch *launch);

typedef struct sb_kl_out {
    uint32_t size;
    uint32_t reserved;
    float *token;
    float *sequence;
} sb_kl_out;

sb_status sb_kl(sb_context *ctx, const sb_kl_out *out, const sb_batch *p, const sb_batch *q,
                       const sb_launch *launch);

typedef enum sb_format {
    SB_H24W16 = 1,
    SB_H24W24 = 2
} sb_format;

typedef struct sb_head sb_head;

typedef struct sb_head_weights {
    uint32_t size;
    int32_t dtype;
    const void *weights;
    int64_t ids;
    int64_t width;
    int64_t row_stride;
    int64_t first;
    const void *bias;
    const uint32_t *scales;
    int32_t bias_dtype;
    int32_t format;
    float scale;
    float softcap;
    int32_t keep_bad;
    int32_t norms;
} sb_head_weights;

sb_status sb_head_bytes(sb_context *ctx, uint64_t *bytes, const sb_head_weights *weights);

sb_status sb_head_create(sb_context *ctx, sb_head **head, const sb_head_weights *weights,
                                void *memory, uint64_t memory_size, const sb_launch *launch);

sb_status sb_head_update(sb_context *ctx, sb_head *head, const sb_head_weights *weights,
                                const sb_launch *launch);

sb_status sb_head_open(sb_context *ctx, sb_head **head, const void *memory,
                              uint64_t memory_size);

sb_status sb_head_describe(sb_context *ctx, sb_head_weights *weights, const sb_head *head);

sb_status sb_head_free(sb_context *ctx, sb_head *head);

typedef struct sb_logits_out {
    uint32_t size;
    int32_t dtype;
    void *logits;
    int64_t row_stride;
    int64_t batch_stride;
    int64_t first, held;
} sb_logits_out;

sb_status sb_logits(sb_context *ctx, const sb_logits_out *out, const sb_batch *batch,
                           const sb_launch *launch);

sb_status sb_head_error(sb_context *ctx, float *error, const sb_batch *batch,
                               const uint32_t *scales, const sb_launch *launch);

typedef struct sb_head_gradient {
    uint32_t size;
    int32_t grad_dtype;
    const void *grad;
    int64_t grad_row_stride;
    int64_t grad_batch_stride;
    int64_t first, held;
    const float *logits;
    const void *weights;
    int64_t weights_stride;
    int32_t weights_dtype;
    int32_t reserved;
    double *by_hidden;
    double *by_weights;
    double *by_bias;
} sb_head_gradient;

sb_status sb_head_backward(sb_context *ctx, const sb_head_gradient *gradient,
                                  const sb_batch *batch, const sb_launch *launch);

sb_status sb_scales(sb_context *ctx, uint32_t *scales, const void *matrix, int32_t dtype,
                           int64_t rows, int64_t width, int64_t row_stride,
                           const sb_launch *launch);

sb_status sb_products(sb_context *ctx, int64_t *sums, const sb_batch *batch,
                             const uint32_t *scales, int64_t first, int64_t n,
                             const sb_launch *launch);

sb_status sb_combine(sb_context *ctx, float *logits, const int64_t *sums,
                            const uint32_t *scales, const sb_head *head, int64_t rows,
                            int64_t first, int64_t n, const sb_launch *launch);

typedef enum sb_policy_loss_kind {
    SB_CLIP = 1,
    SB_GSPO = 2,
    SB_CISPO = 3,
    SB_REINFORCE = 4
} sb_policy_loss_kind;

typedef enum sb_policy_norm {
    SB_TOKEN_MEAN = 1,
    SB_SEQUENCE_MEAN = 2,
    SB_SEQUENCE_SUM = 3,
    SB_CONSTANT = 4
} sb_policy_norm;

typedef enum sb_policy_kl {
    SB_K1 = 1,
    SB_K2 = 2,
    SB_K3 = 3,
    SB_K1_PLUS = 4,
    SB_K3_PLUS = 5
} sb_policy_kl;

typedef enum sb_policy_weight {
    SB_UNWEIGHTED = 0,
    SB_TRUNCATE = 1,
    SB_DROP = 2
} sb_policy_weight;

typedef enum sb_policy_level {
    SB_PER_TOKEN = 0,
    SB_PER_SEQUENCE = 1,
    SB_GEOMETRIC = 2
} sb_policy_level;

typedef struct sb_policy {
    uint32_t size;
    int32_t cu_seqlens_dtype;
    const float *now;
    const float *old;
    const float *ref;
    const float *rollout;
    const float *entropy;
    const float *advantages;
    const uint8_t *mask;
    const void *cu_seqlens;
    int64_t batch;
    int64_t time;
    int64_t rows;
    int64_t tokens;
    int64_t sequences;
    double constant;
    double eps_low;
    double eps_high;
    int32_t loss;
    int32_t norm;
    int32_t kl;
    int32_t weight;
    int32_t level;
    int32_t per_token;
    float dual;
    float beta;
    float eta;
    float w_low;
    float w_high;
    float upstream;
} sb_policy;

typedef struct sb_policy_record {
    uint32_t adds_sequences;
    uint32_t parts;
    int64_t counts[8];
    uint32_t most, least;
    struct {
        int64_t digits[10];
        uint32_t seen, reserved;
    } sums[8];
} sb_policy_record;

typedef struct sb_policy_metrics {
    float loss;
    float pg;
    float kl;
    float entropy;
    float ratio;
    float k1, k3;
    float weight;
    float high, low;
    float dual;
    float cut;
    float drift;
    float outside;
    float ratio_min, ratio_max;
} sb_policy_metrics;

typedef struct sb_policy_out {
    uint32_t size;
    uint32_t reserved;
    float *loss;
    float *sequence;
    float *token;
    float *entropy;
    sb_policy_record *record;
    sb_policy_metrics *metrics;
} sb_policy_out;

sb_status sb_policy_loss(sb_context *ctx, const sb_policy_out *out, const sb_policy *policy,
                                const sb_launch *launch);

sb_status sb_policy_merge(sb_context *ctx, const sb_policy_out *out, const sb_policy *policy,
                                 const sb_policy_record *records, int64_t count,
                                 const sb_launch *launch);

typedef struct sb_group_record {
    uint64_t count;
    int64_t digits[10];
    uint32_t seen, reserved;
    uint64_t squares[18];
} sb_group_record;

typedef enum sb_group_scale {
    SB_UNSCALED = 0,
    SB_GROUP_STD = 1,
    SB_STEP_STD = 2
} sb_group_scale;

typedef struct sb_groups {
    uint32_t size;
    int32_t offsets_dtype;
    const float *rewards;
    const void *offsets;
    int64_t groups;
    int64_t each;
    int64_t rows;
    const sb_group_record *records;
    int64_t shards;
    int32_t scale;
    int32_t population;
    float eps;
    int32_t reserved;
} sb_groups;

typedef struct sb_groups_out {
    uint32_t size;
    uint32_t reserved;
    float *advantages;
    sb_group_record *records;
    double *mean;
    double *std;
} sb_groups_out;

sb_status sb_group_advantages(sb_context *ctx, const sb_groups_out *out,
                                     const sb_groups *groups, const sb_launch *launch);

sb_status sb_check(sb_context *ctx, void *stream);

typedef enum sb_memory {
    SB_DEVICE = 1,
    SB_PINNED = 2
} sb_memory;

sb_status sb_memory_alloc(sb_context *ctx, void **data, uint64_t bytes, sb_memory kind);
sb_status sb_memory_free(sb_context *ctx, void *data, sb_memory kind);
sb_status sb_memory_copy(sb_context *ctx, void *to, const void *from, uint64_t bytes,
                                void *stream);

sb_status sb_stream_create(sb_context *ctx, void **stream);
sb_status sb_stream_destroy(sb_context *ctx, void *stream);
sb_status sb_stream_wait(sb_context *ctx, void *stream);
]]
end

return {
  SB_VERSION = "0.1.0",
  SB_ABI = 1,
  SB_NUMERICS = 1,
  SB_MAX_VOCAB = 1048576,
  SB_MAX_TOPK = 64,
  SB_MAX_WIDTH = 32768,
  SB_DRAW_PROGRESS = 128,
  SB_IGNORE_INDEX = -100,
}
