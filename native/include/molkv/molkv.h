// molkv.h: the native core of molkv behind one C ABI.
//
// It opens an expert blob and reads its rows by token id, keeps the expert window whose planes a
// dense graph reads, attends over that window, chooses tokens, and turns text into token ids and
// back. docs/native.md shows how to build and use it; docs/format.md, docs/graph.md and
// docs/sampling.md are the specifications, and the NumPy code of molkv_runtime is the reference
// that every function here is compared with.
//
// A step of a language model, with a graph engine of the caller's:
//
//   molkv_prefetch_start     as soon as the step's token ids are known
//   molkv_prefetch_wait      when their rows are needed
//   molkv_window_append      copies them to where the graph reads them
//   molkv_blob_embeddings    where rows carry the input embedding: another input of the graph
//   molkv_window_plane       for each layer and kind of plane: the graph's inputs
//   (the graph runs; its op ExpertAttention is molkv_attention)
//   molkv_sampler_sample     chooses the next token from the logits
//   molkv_text_stream_push   the text that this token completes
//
// Rules that hold for every function:
//
// - Errors. A function that can fail returns a molkv_status and takes a molkv_error*, which may
//   be NULL. On failure it fills the error and leaves every output as it was, unless its comment
//   says otherwise. On success it leaves the error as it was. Nothing throws, and no bad argument
//   or file ends the process; memory that is smaller than a comment asks for may.
// - NULL. A pointer must not be NULL unless a comment says that it may. Where a function can fail,
//   NULL is MOLKV_INVALID_ARGUMENT; a function that cannot fail does nothing, and returns 0.
// - Ownership. What a function named *_open, *_parse, *_create, *_start or *_fork gives is the
//   caller's, to be given back with the matching *_close or *_free, which accept NULL. Memory that
//   is passed in is not kept after the call.
// - Threads. There is no global state. Different handles may be used from different threads at
//   once. Each function says which of these holds for one handle:
//     "Any thread": also while other threads use the same handle.
//     "One thread": while no other thread uses the same handle.
// - Sizes. Counts are in elements, sizes in bytes. Numbers are in the processor's own order.
//   Enumerations are 32-bit integers. Structs that may grow begin with struct_size, which the
//   caller sets to sizeof; fields that an older caller does not know keep their defaults.
// - Text is UTF-8 with an explicit length, never assumed to end in a zero byte. Paths, and the
//   messages and names that the library gives, end in a zero byte.
// - Files may be larger than 2 GiB, also in a 32-bit process.

#ifndef MOLKV_MOLKV_H_
#define MOLKV_MOLKV_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define MOLKV_EXPORT __declspec(dllexport)
#else
#define MOLKV_EXPORT __attribute__((visibility("default")))
#endif

// With it, C++ lets an enumeration hold any number, so that one which it does not name can be
// refused; without, reading it would be undefined.
#ifdef __cplusplus
#define MOLKV_ENUM : int32_t
#else
#define MOLKV_ENUM
#endif

#ifdef __cplusplus
extern "C" {
#endif

// ---------------------------------------------------------------------------------------------
// Version

// Increased when a function or struct changes in a way that old callers would not survive.
#define MOLKV_ABI_VERSION 1

// The ABI version of the loaded library; it must equal MOLKV_ABI_VERSION. Any thread.
MOLKV_EXPORT uint32_t molkv_abi_version(void);

// ---------------------------------------------------------------------------------------------
// Errors

typedef enum molkv_status MOLKV_ENUM {
  MOLKV_OK = 0,
  MOLKV_INVALID_ARGUMENT = 1,  // an argument that can never work: a null pointer, a size of zero
  MOLKV_IO = 2,                // the system refused to open or read
  MOLKV_FORMAT = 3,            // a file breaks its format
  MOLKV_CORRUPT_ROW = 4,       // a row does not match its CRC32C, or cannot be read whole
  MOLKV_OUT_OF_RANGE = 5,      // a token id outside the vocabulary, more than there is room for
  MOLKV_OUT_OF_MEMORY = 6,     // less memory than the call needs
  MOLKV_UNSUPPORTED = 7,       // valid, but not for this build: a data type, a tokenizer, a kernel
} molkv_status;

// Filled by a failing function. The message names the file, the field, the value and the fix. It is
// UTF-8 (if the path that was passed is) and ends in a zero byte; one that is too long is cut,
// never inside a character.
typedef struct molkv_error {
  molkv_status status;
  char message[1020];
} molkv_error;

// ---------------------------------------------------------------------------------------------
// Expert blob (docs/format.md)

typedef enum molkv_data_type MOLKV_ENUM {
  MOLKV_NONE = 0,
  MOLKV_FLOAT32 = 1,
  MOLKV_FLOAT16 = 2,
  MOLKV_INT8 = 3,
  MOLKV_INT4 = 4,  // values only: two elements a byte, the first in its low four bits
} molkv_data_type;

// Elements of a MOLKV_INT4 value that share a scale.
#define MOLKV_INT4_GROUP 32

// What a row holds. The fields are those of the blob's header. `scale_dtype` is the type of the
// values' scales; it and the group sizes are 0 where there are no scales.
typedef struct molkv_geometry {
  uint32_t layers;
  uint32_t experts;     // N
  uint32_t key_heads;   // G; 0 where experts have no keys (MoLE)
  uint32_t key_size;    // dk
  uint32_t value_size;  // d
  uint32_t key_dtype;   // molkv_data_type
  uint32_t value_dtype;
  uint32_t scale_dtype;
  uint32_t key_group_size;
  uint32_t value_group_size;
} molkv_geometry;

// An open expert blob.
typedef struct molkv_blob molkv_blob;

typedef enum molkv_blob_mode MOLKV_ENUM {
  MOLKV_STORAGE = 0,   // every row is read when it is asked for
  MOLKV_RESIDENT = 1,  // all rows are read once, at open, and kept in memory
} molkv_blob_mode;

// All zero but for struct_size are the defaults.
typedef struct molkv_blob_options {
  uint32_t struct_size;
  uint32_t readers;      // threads that read at once, 1 to 64; 0 means 4
  uint32_t skip_verify;  // 1: do not compare the CRC32C of each row
  uint32_t mode;         // molkv_blob_mode
  uint32_t direct_io;    // 1: bypass the page cache where the file system can
  uint64_t cache_bytes;  // memory for rows read before; 0: none
} molkv_blob_options;

typedef struct molkv_blob_info {
  molkv_geometry geometry;
  uint64_t vocabulary_size;  // rows over all shards: token ids are 0 to vocabulary_size - 1
  uint64_t row_size;         // bytes of a row that carry data, CRC32C included
  uint64_t row_stride;       // bytes of a row in the file
  uint8_t identity[32];      // sha256 of the checkpoint's weights; the manifest must have the same
} molkv_blob_info;

// What was read since the blob was opened.
typedef struct molkv_blob_stats {
  uint64_t reads;        // positional reads issued
  uint64_t rows;         // rows read from storage
  uint64_t bytes;        // bytes read from storage
  uint64_t cache_hits;   // rows that the cache had
  uint64_t nanoseconds;  // inside reads, summed over calls
} molkv_blob_stats;

// Opens a blob by path: the only file, or all its shards in any order. Everything that the format
// demands is checked; rows are checked when they are read. options may be NULL. Any thread.
MOLKV_EXPORT molkv_status molkv_blob_open(const char* const* paths, size_t path_count,
                                          const molkv_blob_options* options, molkv_blob** blob,
                                          molkv_error* error);

// Opens a single-file blob that lies inside an open file, as Android hands out for assets: at
// `offset`, `length` bytes long. The descriptor is duplicated, so the caller may close its own at
// once. Its file position is neither used nor moved, but the system is told not to read ahead in
// this open file. options may be NULL. Any thread.
MOLKV_EXPORT molkv_status molkv_blob_open_descriptor(int descriptor, uint64_t offset,
                                                     uint64_t length,
                                                     const molkv_blob_options* options,
                                                     molkv_blob** blob, molkv_error* error);

// Waits for reads under way. One thread, and after every prefetch of the blob was freed.
MOLKV_EXPORT void molkv_blob_close(molkv_blob* blob);

// What the blob holds. Any thread.
MOLKV_EXPORT void molkv_blob_get_info(const molkv_blob* blob, molkv_blob_info* info);

// What was read so far. Any thread.
MOLKV_EXPORT void molkv_blob_get_stats(const molkv_blob* blob, molkv_blob_stats* stats);

// Reads the rows of some tokens, each distinct id once, in the order of the file. Any thread.
//
// rows:      space for count * row_stride bytes; the first *distinct rows are filled, in ascending
//            order of token id. What is in them after a failure is unspecified.
// index:     count elements; index[t] is the place of token t's row in rows.
// distinct:  set to the number of rows.
//
// token_ids, rows and index may be NULL if count is 0. An id that is not from 0 to
// vocabulary_size - 1 is MOLKV_OUT_OF_RANGE, before anything is read.
MOLKV_EXPORT molkv_status molkv_blob_read(molkv_blob* blob, const int64_t* token_ids, size_t count,
                                          uint8_t* rows, uint32_t* index, size_t* distinct,
                                          molkv_error* error);

// Type of the input embedding that every row carries, value_size elements beside the experts:
// MOLKV_FLOAT16, or MOLKV_NONE where rows carry none, because the dense graph has the embedding and
// takes token ids. Any thread.
MOLKV_EXPORT uint32_t molkv_blob_embedding_dtype(const molkv_blob* blob);

// The input embeddings of `count` tokens, from their rows as molkv_blob_read or molkv_prefetch_wait
// give them: what the graph's input "embeddings" takes. What the index says is not checked: it must
// be the one that came with the rows. Any thread.
//
// embeddings: space for float32 [count, value_size].
//
// rows, index and embeddings may be NULL if count is 0. Where rows carry no embedding, the call is
// MOLKV_INVALID_ARGUMENT.
MOLKV_EXPORT molkv_status molkv_blob_embeddings(const molkv_blob* blob, const uint8_t* rows,
                                                const uint32_t* index, size_t count,
                                                float* embeddings, molkv_error* error);

// A read that is under way in the background.
typedef struct molkv_prefetch molkv_prefetch;

// Starts to read the rows of some tokens and returns at once; the ids are copied and checked, but
// what goes wrong in reading is said by molkv_prefetch_wait. token_ids may be NULL if count is 0.
// Any thread.
MOLKV_EXPORT molkv_status molkv_prefetch_start(molkv_blob* blob, const int64_t* token_ids,
                                               size_t count, molkv_prefetch** prefetch,
                                               molkv_error* error);

// Waits for the rows, which are as molkv_blob_read gives them and stay valid until the prefetch is
// freed. Repeatable. Any thread.
MOLKV_EXPORT molkv_status molkv_prefetch_wait(molkv_prefetch* prefetch, const uint8_t** rows,
                                              const uint32_t** index, size_t* distinct,
                                              molkv_error* error);

// Gives up a read that has not begun, waits for one that has, and frees. Must be called before the
// blob is closed. One thread.
MOLKV_EXPORT void molkv_prefetch_free(molkv_prefetch* prefetch);

// ---------------------------------------------------------------------------------------------
// Expert window (docs/graph.md, "The window")

// The last tokens' rows, in the form that the dense graph reads.
typedef struct molkv_window molkv_window;

typedef enum molkv_plane_kind MOLKV_ENUM {
  MOLKV_KEYS = 0,
  MOLKV_VALUES = 1,
  MOLKV_KEY_SCALES = 2,
  MOLKV_VALUE_SCALES = 3,
} molkv_plane_kind;

// A view of one layer's rows, oldest first. `data` is NULL where the geometry has no such plane.
typedef struct molkv_plane {
  void* data;
  uint64_t rows;       // S, the same for all planes
  uint64_t row_bytes;  // of one row, all its experts
  uint32_t dtype;      // molkv_data_type
} molkv_plane;

// Makes an empty window for a blob's rows. `window` is W, `chunk` the most tokens that one append
// brings; both are at least 1. Memory is molkv_window_bytes. Any thread.
MOLKV_EXPORT molkv_status molkv_window_create(const molkv_geometry* geometry, uint32_t window,
                                              uint32_t chunk, molkv_window** result,
                                              molkv_error* error);

// One thread.
MOLKV_EXPORT void molkv_window_free(molkv_window* window);

// Memory of all planes: (W - 1 + max(chunk, W)) rows of their sections' sizes. Any thread.
MOLKV_EXPORT uint64_t molkv_window_bytes(const molkv_window* window);

// Appends the rows of `count` tokens, at most `chunk`, as molkv_blob_read or molkv_prefetch_wait
// give them, and drops the rows that none of these tokens can attend. `row_stride` is the blob's.
// What the index says is not checked: it must be the one that came with the rows. rows and index
// may be NULL if count is 0. One thread.
MOLKV_EXPORT molkv_status molkv_window_append(molkv_window* window, const uint8_t* rows,
                                              uint64_t row_stride, const uint32_t* index,
                                              size_t count, molkv_error* error);

// First and last-plus-one row of the window's memory that the current step reads; S is their
// difference. One thread.
MOLKV_EXPORT void molkv_window_bounds(const molkv_window* window, uint64_t* first, uint64_t* last);

// The rows that the current step reads: of keys [S, N, G * dk], of values [S, N, d] (int4: d / 2
// bytes), of either's scales [S, N] (int4 values: [S, N, d / 32]). Valid until the next append,
// truncate, reset or free. One thread; but any thread while none changes the window.
MOLKV_EXPORT molkv_status molkv_window_plane(const molkv_window* window, uint32_t layer,
                                             molkv_plane_kind kind, molkv_plane* plane,
                                             molkv_error* error);

// Forgets all rows. One thread.
MOLKV_EXPORT void molkv_window_reset(molkv_window* window);

// Forgets the newest `count` rows, to edit a conversation. Fails with MOLKV_OUT_OF_RANGE if that
// would need rows that were dropped already; reset, and append the last W - 1 tokens' rows anew
// then. One thread.
MOLKV_EXPORT molkv_status molkv_window_truncate(molkv_window* window, uint64_t count,
                                                molkv_error* error);

// A copy with memory of its own, to continue a text in two ways. One thread.
MOLKV_EXPORT molkv_status molkv_window_fork(const molkv_window* window, molkv_window** result,
                                            molkv_error* error);

// ---------------------------------------------------------------------------------------------
// Expert attention (docs/graph.md, "The op")

// A kernel is one implementation of the op. All are within 2e-6 of the scalar one, relative to the
// largest output (docs/native.md, "Kernels").
typedef enum molkv_kernel MOLKV_ENUM {
  MOLKV_KERNEL_BEST = 0,  // the fastest that this processor has
  MOLKV_KERNEL_SCALAR = 1,
  MOLKV_KERNEL_AVX2 = 2,
  MOLKV_KERNEL_AVX512 = 3,  // F, BW, VL and DQ
  MOLKV_KERNEL_NEON = 4,
  MOLKV_KERNEL_NEON_DOTPROD = 5,
} molkv_kernel;

// 1 if this build and processor have a kernel, else 0. Any thread.
MOLKV_EXPORT int molkv_kernel_available(molkv_kernel kernel);

// The kernel's name, such as "avx512"; for MOLKV_KERNEL_BEST the name of the one that it chooses.
// "unknown" for a number that is no kernel's. The string is static. Any thread.
MOLKV_EXPORT const char* molkv_kernel_name(molkv_kernel kernel);

typedef struct molkv_attention_inputs {
  uint32_t struct_size;
  uint32_t kernel;           // molkv_kernel
  uint32_t tokens;           // T; token t sits in row S - T + t
  uint32_t rows;             // S
  uint32_t experts;          // N
  uint32_t heads;            // G
  uint32_t key_size;         // dk, at most 65536
  uint32_t value_size;       // d, a multiple of G
  uint32_t window;           // W
  uint32_t key_dtype;        // MOLKV_INT8 or MOLKV_FLOAT16
  uint32_t value_dtype;      // MOLKV_INT8, MOLKV_FLOAT16, or MOLKV_INT4: d / G a multiple of 32
  int64_t start;             // rows before it are padding: at most S - T; negative: no padding
  const float* query;        // [T, G, dk]
  const void* keys;          // [S, N, G * dk]
  const float* key_scales;   // [S, N], or NULL
  const void* values;        // [S, N, d]; MOLKV_INT4: [S, N, d / 2] bytes
  const void* value_scales;  // float32 [S, N], or NULL; MOLKV_INT4: float16 [S, N, d / 32]
  const float* age_bias;     // [G, N, W]
} molkv_attention_inputs;

// Given by the caller: runs `work(context, first, last)` over disjoint ranges that cover
// [0, count), on as many threads as it likes, and returns when all are done. `pool` is what the
// caller passed beside it. It must not throw.
typedef void (*molkv_parallel_for)(void* pool, size_t count,
                                   void (*work)(void* context, size_t first, size_t last),
                                   void* context);

// Bytes of scratch memory that a call needs; 0 for inputs that molkv_attention would refuse, so
// the arrays must be set already, though they are not read. Any thread.
MOLKV_EXPORT size_t molkv_attention_scratch_bytes(const molkv_attention_inputs* inputs);

// The op ExpertAttention. output: [T, d]. `scratch` may be NULL: then memory is allocated for the
// call. `parallel` may be NULL: then the calling thread does all. The result is the same to the bit
// with any number of threads, and however tokens are cut into calls. Any thread, each with scratch
// memory of its own.
MOLKV_EXPORT molkv_status molkv_attention(const molkv_attention_inputs* inputs, float* output,
                                          void* scratch, molkv_parallel_for parallel, void* pool,
                                          molkv_error* error);

// ---------------------------------------------------------------------------------------------
// Sampler (docs/sampling.md)

// A way to choose tokens, and its random generator.
typedef struct molkv_sampler molkv_sampler;

// There are no defaults but those of the comments: a field left 0 means 0.
typedef struct molkv_sampling {
  uint32_t struct_size;
  uint32_t top_k;      // 0 keeps all
  double temperature;  // 0 always takes the best token
  double top_p;        // 1 keeps all; greater than 0
  double min_p;        // 0 keeps all; at most 1
  uint64_t seed;       // the same seed and logits give the same tokens, everywhere
} molkv_sampling;

// A field outside its range is MOLKV_INVALID_ARGUMENT. Any thread.
MOLKV_EXPORT molkv_status molkv_sampler_create(const molkv_sampling* sampling,
                                               molkv_sampler** sampler, molkv_error* error);

// One thread.
MOLKV_EXPORT void molkv_sampler_free(molkv_sampler* sampler);

// Starts the random generator anew from the seed. One thread.
MOLKV_EXPORT void molkv_sampler_reset(molkv_sampler* sampler);

// Chooses a token from logits [vocabulary_size]. One thread.
MOLKV_EXPORT molkv_status molkv_sampler_sample(molkv_sampler* sampler, const float* logits,
                                               size_t vocabulary_size, int64_t* token_id,
                                               molkv_error* error);

// ---------------------------------------------------------------------------------------------
// Tokenizer

// Nothing in it changes after it was made.
typedef struct molkv_tokenizer molkv_tokenizer;

// Reads a tokenizer.json of byte-level BPE, with NFC or no normalizer. Special tokens are found in
// a text, never added to it. Anything else in the file that would change a result is
// refused by name with MOLKV_UNSUPPORTED; a damaged file is MOLKV_FORMAT. Any thread.
MOLKV_EXPORT molkv_status molkv_tokenizer_open(const char* path, molkv_tokenizer** tokenizer,
                                               molkv_error* error);

// The same from memory. Any thread.
MOLKV_EXPORT molkv_status molkv_tokenizer_parse(const char* json, size_t size,
                                                molkv_tokenizer** tokenizer, molkv_error* error);

// One thread, and after every stream of the tokenizer was freed.
MOLKV_EXPORT void molkv_tokenizer_close(molkv_tokenizer* tokenizer);

// One more than the largest id. Any thread.
MOLKV_EXPORT uint64_t molkv_tokenizer_vocabulary_size(const molkv_tokenizer* tokenizer);

// How many tokens there are; fewer than the vocabulary size if ids have gaps. Any thread.
MOLKV_EXPORT uint64_t molkv_tokenizer_token_count(const molkv_tokenizer* tokenizer);

// The id of a token by its content, such as "<|endoftext|>"; -1 if there is none. Any thread.
MOLKV_EXPORT int64_t molkv_tokenizer_find(const molkv_tokenizer* tokenizer, const char* content,
                                          size_t size);

// Encodes text; bytes that are no UTF-8 are read as U+FFFD, one for each maximal invalid part. text
// may be NULL if size is 0.
//
// Two calls: with token_ids NULL, *count is set to the number of ids; with token_ids, *count says
// how many fit and is set to how many there are, also where that is more and the call fails with
// MOLKV_OUT_OF_RANGE. Any thread.
MOLKV_EXPORT molkv_status molkv_tokenizer_encode(const molkv_tokenizer* tokenizer, const char* text,
                                                 size_t size, int64_t* token_ids, size_t* count,
                                                 molkv_error* error);

// Decodes ids, without special tokens if asked. An id without a token, as in a padded vocabulary,
// gives nothing; one that is not from 0 to 2^32 - 1 is MOLKV_OUT_OF_RANGE. token_ids may be NULL if
// count is 0. Two calls, as above: *size is in bytes. Any thread.
MOLKV_EXPORT molkv_status molkv_tokenizer_decode(const molkv_tokenizer* tokenizer,
                                                 const int64_t* token_ids, size_t count,
                                                 int skip_special_tokens, char* text, size_t* size,
                                                 molkv_error* error);

// Text that comes token by token, never half a UTF-8 character.
typedef struct molkv_text_stream molkv_text_stream;

// The tokenizer must outlive the stream. Any thread.
MOLKV_EXPORT molkv_status molkv_text_stream_create(const molkv_tokenizer* tokenizer,
                                                   int skip_special_tokens,
                                                   molkv_text_stream** stream, molkv_error* error);

// One thread.
MOLKV_EXPORT void molkv_text_stream_free(molkv_text_stream* stream);

// The whole characters that a token completes, possibly none. *text is valid until the next call on
// the stream. An id is refused as by molkv_tokenizer_decode. One thread.
MOLKV_EXPORT molkv_status molkv_text_stream_push(molkv_text_stream* stream, int64_t token_id,
                                                 const char** text, size_t* size,
                                                 molkv_error* error);

// What is left at the end: an unfinished character becomes U+FFFD, as a whole decode would give it.
// The stream then starts afresh. *text is valid until the next call on the stream. One thread.
MOLKV_EXPORT molkv_status molkv_text_stream_finish(molkv_text_stream* stream, const char** text,
                                                   size_t* size, molkv_error* error);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // MOLKV_MOLKV_H_
