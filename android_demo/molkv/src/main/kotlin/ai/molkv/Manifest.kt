package ai.molkv

/** `manifest.json`: what a bundle holds and for which model (docs/graph.md). */
public data class Manifest(
    /** sha256 of the checkpoint's weights, which graph and expert blob carry too. */
    val identity: String,
    val model: ModelEntry,
    /** Precision of the expert rows: `int8`, `int4`, `f16`, or null without experts. */
    val expertPrecision: String?,
    /** Precision of the input embedding in the rows: `f16`, or null where the graphs have it. */
    val embeddingPrecision: String?,
    /** The expert blob's files; none without experts. */
    val experts: List<String>,
    /** Dense graphs by backend: `onnx`, `executorch`, `coreml`. */
    val backends: Map<String, BackendEntry>,
    val tokenizer: TokenizerEntry?,
    val golden: String,
    /** Every file but the manifest. */
    val files: List<FileEntry>,
)

/** A file of the bundle: its name, size in bytes and sha256 in hexadecimal. */
public data class FileEntry(
    val name: String,
    val bytes: Long,
    val sha256: String,
)

/** The model's hyper-parameters, named as in the checkpoint's `config.json`. */
public data class ModelEntry(
    val architecture: String,
    val vocabSize: Long,
    val hiddenSize: Long,
    val layers: Long,
    val attentionHeads: Long,
    val keyValueHeads: Long,
    val context: Long,
    val experts: Long,
    val expertKeySize: Long,
    val expertQueryHeads: Long,
    val expertWindow: Long,
    /** All fields, also those that only the graph needs. */
    val fields: Map<String, Any>,
) {
    /** Whether it looks expert rows up. */
    val hasExperts: Boolean get() = architecture != "dense"

    /** Size of one head of self-attention. */
    val headSize: Long get() = hiddenSize / attentionHeads
}

/** One backend's dense graph: its file, and the precisions of its weights and its cache. */
public data class BackendEntry(
    val graph: String,
    val dense: String,
    val cache: String,
) {
    /** Whether weights and cache are, so that tokens are those of `golden.json`. */
    val isFloat32: Boolean get() = dense == "fp32" && cache == "fp32"
}

/** The tokenizer's file and how many tokens it knows. */
public data class TokenizerEntry(
    val file: String,
    val vocabularySize: Long,
)
