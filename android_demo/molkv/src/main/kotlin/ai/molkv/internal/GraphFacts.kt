package ai.molkv.internal

import ai.molkv.BundleException
import ai.molkv.JsonRecord
import ai.molkv.Manifest
import ai.molkv.ManifestReader

/**
 * Checks that a loaded graph, or an open blob, is the manifest's.
 *
 * @param place the file, for messages
 */
internal class GraphFacts(
    private val place: String,
    private val manifest: Manifest,
) {
    /** Compares the graph's metadata. @throws BundleException a fact differs */
    fun checkMetadata(properties: Map<String, String>) {
        val backend = manifest.backends.getValue("onnx")
        check("identity", properties["molkv.identity"], manifest.identity)
        check("experts", properties["molkv.experts"], manifest.expertPrecision ?: "none")
        val stored = manifest.embeddingPrecision != null
        check("embedding", properties["molkv.embedding"], if (stored) "storage" else null)
        check("dense", properties["molkv.dense"], backend.dense)
        check("cache", properties["molkv.cache"], backend.cache)
        val config = properties["molkv.config"] ?: "{}"
        val found =
            JsonRecord.read("$place: molkv.config", config.toByteArray()) { json ->
                ManifestReader.modelFields(json, { json.skip() }, required = false)
            }
        // What kind of file the configuration was is no matter of the graph's.
        for ((name, value) in manifest.model.fields) check(name, found[name], value)
    }

    /** Refuses sizes that no model has, before anything is allocated for them. */
    fun checkSizes() {
        val model = manifest.model
        val least = if (model.hasExperts) 1L else 0L
        val sizes =
            mapOf(
                "vocab_size" to (model.vocabSize to 1L),
                "hidden_size" to (model.hiddenSize to 1L),
                "num_hidden_layers" to (model.layers to 1L),
                "num_attention_heads" to (model.attentionHeads to 1L),
                "num_key_value_heads" to (model.keyValueHeads to 1L),
                "max_position_embeddings" to (model.context to 1L),
                "num_experts" to (model.experts to least),
                "expert_window" to (model.expertWindow to least),
                "expert_key_size" to (model.expertKeySize to 0L),
                "expert_query_heads" to (model.expertQueryHeads to 0L),
            )
        for ((name, size) in sizes) {
            val (value, smallest) = size
            if (value in smallest..LARGEST) continue
            throw BundleException(
                "$place: $name is $value, must be $smallest to $LARGEST",
                "export again",
            )
        }
    }

    /** Compares the graph's inputs with those that a model of this kind has. */
    fun checkInputs(found: Set<String>) {
        val model = manifest.model
        // As many inputs as can be expected at all, before any name is made.
        val plausible = found.size >= 2 * model.layers
        val expected = if (plausible) expectedInputs() else emptySet()
        if (found == expected) return
        val unknown = (found - expected).sorted().take(3)
        val missing = (expected - found).sorted().take(3)
        val difference =
            if (plausible) "; unknown: $unknown, missing: $missing" else ""
        throw BundleException(
            "$place: its inputs are not those of a ${model.architecture} model with " +
                "${model.layers} layers and ${manifest.expertPrecision ?: "no"} experts$difference",
            "update molkv, or export with this version",
        )
    }

    /** Compares an expert blob with the graph that reads it. */
    fun checkBlob(blob: BlobInfo) {
        val model = manifest.model
        val keys = model.architecture == "molkv"
        val stored = if (manifest.expertPrecision == "f16") DataType.FLOAT16 else DataType.INT8
        val values = if (manifest.expertPrecision == "int4") DataType.INT4 else stored
        checkBlob("identity", blob.identity, manifest.identity)
        checkBlob("vocabulary_size", blob.vocabularySize, model.vocabSize)
        checkBlob("layers", blob.layers, model.layers)
        checkBlob("experts", blob.experts, model.experts)
        checkBlob("key_heads", blob.keyHeads, if (keys) model.expertQueryHeads else 0)
        checkBlob("key_size", blob.keySize, if (keys) model.expertKeySize else 0)
        checkBlob("value_size", blob.valueSize, model.hiddenSize)
        checkBlob("key_dtype", blob.keyType.label, (if (keys) stored else DataType.NONE).label)
        checkBlob("value_dtype", blob.valueType.label, values.label)
        val carried = if (manifest.embeddingPrecision == null) DataType.NONE else DataType.FLOAT16
        checkBlob("embedding_dtype", blob.embeddingType.label, carried.label)
    }

    private fun expectedInputs(): Set<String> {
        val planes = ExpertPlane.of(manifest).map { it.input }
        val caches =
            (0 until manifest.model.layers).flatMap { listOf("past_key.$it", "past_value.$it") }
        val start = if (planes.isEmpty()) emptyList() else listOf("expert_start")
        val tokens = if (manifest.embeddingPrecision == null) "input_ids" else "embeddings"
        return (listOf(tokens, "position", "logits_index") + caches + start + planes).toSet()
    }

    private fun check(
        name: String,
        found: Any?,
        expected: Any?,
    ) {
        if (found == expected) return
        throw BundleException(
            "$place: $name is ${found ?: "missing"}, the manifest says ${expected ?: "missing"}",
            "graph and manifest must come from one export",
        )
    }

    private fun checkBlob(
        name: String,
        found: Any,
        expected: Any,
    ) {
        if (found == expected) return
        throw BundleException(
            "$place: $name is $found, the dense graph's is $expected",
            "graph and blob must come from one export",
        )
    }

    private companion object {
        const val LARGEST = 1L shl 24
    }
}
