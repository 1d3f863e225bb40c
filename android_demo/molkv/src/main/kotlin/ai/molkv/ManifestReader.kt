package ai.molkv

/** Reads `manifest.json`. [place] is the file, for messages. */
internal class ManifestReader(
    private val place: String,
) {
    /** @throws BundleException it breaks docs/graph.md, "manifest.json" */
    fun read(content: ByteArray): Manifest {
        checkVersion(place, content)
        val manifest = JsonRecord.read(place, content, ::manifest)
        checkEmbedding(manifest)
        manifest.files.forEach { checkInside(it.name, manifest.backends) }
        checkListed(manifest)
        return manifest
    }

    private fun manifest(json: JsonRecord): Manifest {
        lateinit var identity: String
        lateinit var model: ModelEntry
        lateinit var backends: Map<String, BackendEntry>
        lateinit var golden: String
        var precisions = Precisions(experts = null, embedding = null)
        var experts = emptyList<String>()
        var tokenizer: TokenizerEntry? = null
        var files = emptyList<FileEntry>()
        json.fields(REQUIRED) { name ->
            when (name) {
                "schema_version" -> json.integer()

                "producer" -> json.map(json::text)

                "identity" -> identity = json.text()

                "model" -> model = model(json)

                "quantization" -> precisions = quantization(json)

                "experts" -> experts = json.list(json::text)

                "backends" -> backends = json.map { backend(json) }

                "tokenizer" -> tokenizer = json.nullable { tokenizer(json) }

                "golden" -> golden = json.text()

                "files" -> files = json.list { file(json) }

                // The exporter's verdict; ParityCheck makes this device's own.
                "parity" -> json.skip()

                else -> json.unknown(name)
            }
        }
        return Manifest(
            identity,
            model,
            precisions.experts,
            precisions.embedding,
            experts,
            backends,
            tokenizer,
            golden,
            files,
        )
    }

    private fun quantization(json: JsonRecord): Precisions {
        var experts: String? = null
        var embedding: String? = null
        json.fields(setOf("experts")) { name ->
            when (name) {
                "experts" -> {
                    experts = json.nullable { choice(json, name, EXPERT_PRECISIONS) }
                }

                "embedding" -> {
                    embedding = json.nullable { choice(json, name, EMBEDDING_PRECISIONS) }
                }

                "calibration" -> {
                    json.nullable { calibration(json) }
                }

                else -> {
                    json.unknown(name)
                }
            }
        }
        return Precisions(experts, embedding)
    }

    /** How the precision of the experts was chosen: read strictly, but not used. */
    private fun calibration(json: JsonRecord) {
        json.fields(setOf("max_kl", "kl_divergence", "same_top1", "tokens")) { name ->
            when (name) {
                "max_kl", "kl_divergence", "same_top1" -> json.number()
                "tokens" -> json.integer()
                else -> json.unknown(name)
            }
        }
    }

    private fun backend(json: JsonRecord): BackendEntry {
        lateinit var graph: String
        lateinit var dense: String
        lateinit var cache: String
        val required = setOf("graph", "dense", "cache", "operators", "delegates", "limits")
        json.fields(required + "compute_units") { name ->
            when (name) {
                "graph" -> graph = json.text()
                "dense" -> dense = choice(json, name, DENSE_PRECISIONS)
                "cache" -> cache = choice(json, name, CACHE_PRECISIONS)
                "operators" -> json.map(json::integer)
                "delegates" -> json.list(json::text)
                "limits" -> json.nullable { json.map(json::integer) }
                "compute_units" -> json.nullable(json::text)
                else -> json.unknown(name)
            }
        }
        return BackendEntry(graph, dense, cache)
    }

    private fun tokenizer(json: JsonRecord): TokenizerEntry {
        lateinit var file: String
        var size = 0L
        json.fields(setOf("file", "vocabulary_size")) { name ->
            when (name) {
                "file" -> file = json.text()
                "vocabulary_size" -> size = json.integer()
                else -> json.unknown(name)
            }
        }
        return TokenizerEntry(file, size)
    }

    private fun file(json: JsonRecord): FileEntry {
        lateinit var file: String
        lateinit var digest: String
        var bytes = 0L
        json.fields(setOf("name", "bytes", "sha256")) { name ->
            when (name) {
                "name" -> file = json.text()
                "bytes" -> bytes = json.integer()
                "sha256" -> digest = json.text()
                else -> json.unknown(name)
            }
        }
        return FileEntry(file, bytes, digest)
    }

    private fun checkEmbedding(manifest: Manifest) {
        if (manifest.embeddingPrecision == null) return
        if (manifest.experts.isNotEmpty() && manifest.expertPrecision != null) return
        throw BundleException(
            "$place: quantization.embedding is ${manifest.embeddingPrecision}, but there are " +
                "no expert rows that carry it",
            "export again",
        )
    }

    /** A name must be bare, or that of a file in a graph that is a folder. */
    private fun checkInside(
        name: String,
        backends: Map<String, BackendEntry>,
    ) {
        val parts = name.split("/")
        val inGraph = parts.size > 1 && backends.values.any { it.graph == parts.first() }
        val bare = parts.all { it.isNotEmpty() && it != "." && it != ".." && '\u0000' !in it }
        if (bare && (parts.size == 1 || inGraph)) return
        throw BundleException(
            "$place: file name '$name' is not a bare name",
            "a bundle names files of its own folder only; export again",
        )
    }

    private fun checkListed(manifest: Manifest) {
        val named = manifest.experts + manifest.golden + manifest.backends.values.map { it.graph }
        val listed =
            manifest.files
                .flatMap {
                    listOf(
                        it.name,
                        it.name.substringBefore("/"),
                    )
                }.toSet()
        val tokenizer = listOfNotNull(manifest.tokenizer?.file)
        val missing = (named + tokenizer).firstOrNull { it !in listed } ?: return
        throw BundleException("$place: files does not list '$missing'", "export again")
    }

    /** What the rows hold; null for what they do not. */
    private class Precisions(
        val experts: String?,
        val embedding: String?,
    )

    internal companion object {
        private const val SCHEMA_VERSION = 1L
        private val EXPERT_PRECISIONS = setOf("int8", "int4", "f16")
        private val EMBEDDING_PRECISIONS = setOf("f16")
        private val DENSE_PRECISIONS = setOf("fp32", "fp16", "int8", "int4", "palettized4")
        private val CACHE_PRECISIONS = setOf("fp32", "fp16", "int8")
        private val ARCHITECTURES = setOf("dense", "mole", "molkv")
        private val REQUIRED =
            setOf("schema_version", "producer", "identity", "model", "quantization", "experts") +
                setOf("backends", "tokenizer", "golden", "files")
        private val MODEL_TEXTS =
            setOf("model_type", "architecture", "feed_forward") +
                "expert_scoring"
        private val MODEL_NUMBERS = setOf("rope_theta", "rms_norm_eps")
        private val MODEL_INTEGERS =
            setOf("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers") +
                setOf("num_attention_heads", "num_key_value_heads", "max_position_embeddings") +
                setOf("num_experts", "expert_intermediate_size", "expert_key_size") +
                setOf("expert_query_heads", "expert_window")
        private const val TIED = "tie_word_embeddings"

        /**
         * Another version is refused before anything else is read, which it may have changed.
         *
         * @throws BundleException there is another version, or none
         */
        fun checkVersion(
            place: String,
            content: ByteArray,
        ) {
            var version = SCHEMA_VERSION
            JsonRecord.read(place, content) { json ->
                json.fields(setOf("schema_version")) { name ->
                    if (name == "schema_version") version = json.integer() else json.skip()
                }
            }
            if (version == SCHEMA_VERSION) return
            throw BundleException(
                "$place: schema_version is $version, this runtime reads $SCHEMA_VERSION",
                if (version > SCHEMA_VERSION) "update molkv" else "export again",
            )
        }

        private fun choice(
            json: JsonRecord,
            name: String,
            known: Set<String>,
        ): String {
            val value = json.text()
            if (value !in
                known
            ) {
                json.refuse("$name is '$value', not one of ${known.joinToString()}")
            }
            return value
        }

        /** The model's fields; the graph carries them too, perhaps with more. */
        fun modelFields(
            json: JsonRecord,
            others: (name: String) -> Unit,
            required: Boolean,
        ): Map<String, Any> {
            val fields = LinkedHashMap<String, Any>()
            val all = MODEL_TEXTS + MODEL_NUMBERS + MODEL_INTEGERS + TIED
            json.fields(if (required) all else emptySet()) { name ->
                when (name) {
                    "architecture" -> fields[name] = choice(json, name, ARCHITECTURES)
                    in MODEL_TEXTS -> fields[name] = json.text()
                    in MODEL_NUMBERS -> fields[name] = json.number()
                    in MODEL_INTEGERS -> fields[name] = json.integer()
                    TIED -> fields[name] = json.boolean()
                    else -> others(name)
                }
            }
            return fields
        }

        private fun model(json: JsonRecord): ModelEntry {
            val fields = modelFields(json, json::unknown, required = true)

            fun integer(name: String) = fields.getValue(name) as Long
            return ModelEntry(
                architecture = fields.getValue("architecture") as String,
                vocabSize = integer("vocab_size"),
                hiddenSize = integer("hidden_size"),
                layers = integer("num_hidden_layers"),
                attentionHeads = integer("num_attention_heads"),
                keyValueHeads = integer("num_key_value_heads"),
                context = integer("max_position_embeddings"),
                experts = integer("num_experts"),
                expertKeySize = integer("expert_key_size"),
                expertQueryHeads = integer("expert_query_heads"),
                expertWindow = integer("expert_window"),
                fields = fields,
            )
        }
    }
}
