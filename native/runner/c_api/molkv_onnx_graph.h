// molkv_onnx_graph.h: the dense graph on ONNX Runtime behind a C ABI, for languages that cannot
// call C++. The rules of molkv.h hold here too: errors, NULL, ownership, threads, text.
//
// ios_demo runs its whole session on it where there is no Core ML.

#ifndef MOLKV_ONNX_GRAPH_H_
#define MOLKV_ONNX_GRAPH_H_

#include "molkv/molkv.h"

#ifdef __cplusplus
extern "C" {
#endif

// A loaded dense.onnx with its self-attention cache. One sequence at a time; a new one starts at
// position 0 without clearing anything.
typedef struct molkv_onnx_graph molkv_onnx_graph;

typedef struct molkv_onnx_graph_options {
  uint32_t struct_size;
  uint32_t threads;              // of the graph engine; 0 means 1
  const char* bundle;            // the bundle's folder
  const char* onnxruntime;       // a libonnxruntime; NULL: MOLKV_ONNXRUNTIME, or the system's
  const char* operator_library;  // libmolkv_ort; NULL: the function inside the file is run
} molkv_onnx_graph_options;

// Loads the graph and checks that it is the one that the bundle's manifest describes; what is wrong
// with it is MOLKV_FORMAT. Any thread.
MOLKV_EXPORT molkv_status molkv_onnx_graph_open(const molkv_onnx_graph_options* options,
                                                molkv_onnx_graph** graph, molkv_error* error);

// One thread.
MOLKV_EXPORT void molkv_onnx_graph_close(molkv_onnx_graph* graph);

// The most new tokens of one run. Any thread.
MOLKV_EXPORT size_t molkv_onnx_graph_chunk(const molkv_onnx_graph* graph);

// Computes the logits after the last of `count` new tokens. One thread.
//
// token_ids:   in the vocabulary
// embeddings:  float32 [count, d] as molkv_blob_embeddings gives them, where rows carry them: the
//              graph takes them and not the ids; NULL where it has the embedding
// position:    absolute position of the first; position + count is at most the context
// window:      with the new tokens' rows appended; NULL without experts
// logits:      float32 [V], valid until the next call
MOLKV_EXPORT molkv_status molkv_onnx_graph_run(molkv_onnx_graph* graph, const int64_t* token_ids,
                                               const float* embeddings, size_t count,
                                               int64_t position, const molkv_window* window,
                                               const float** logits, molkv_error* error);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // MOLKV_ONNX_GRAPH_H_
