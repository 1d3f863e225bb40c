package ai.molkv

/** `golden.json`: what every runtime must reproduce from a bundle, to the token. */
public data class Golden(
    val cases: List<GoldenCase>,
    val rows: List<GoldenRow>,
)

/** One prompt and what follows it. [text] and [greedyText] are null without a tokenizer. */
public class GoldenCase(
    public val name: String,
    public val text: String?,
    public val promptIds: LongArray,
    /** The largest difference from the reference's logits that passes. */
    public val logitsTolerance: Double,
    public val logits: GoldenLogits,
    public val greedy: LongArray,
    public val greedyText: String?,
    public val sampling: Sampling,
    public val sampled: LongArray,
)

/** The largest logits after a prompt, in order, and two figures over the whole vocabulary. */
public class GoldenLogits(
    public val tokenIds: LongArray,
    public val values: List<Double>,
    public val mean: Double,
    public val rootMeanSquare: Double,
)

/** One row of the blob and the sha256 of its bytes without padding. */
public data class GoldenRow(
    val tokenId: Long,
    val bytesSha256: String,
)

/** Reads `golden.json`. [place] is the file, for messages. */
internal class GoldenReader(
    private val place: String,
    private val vocabularySize: Long,
) {
    /** @throws BundleException it is damaged, of another version, or of another model */
    fun read(content: ByteArray): Golden {
        ManifestReader.checkVersion(place, content)
        val golden = JsonRecord.read(place, content, ::golden)
        if (golden.cases.isEmpty()) throw BundleException("$place: cases is empty", "export again")
        for (case in golden.cases) {
            if (case.logitsTolerance <= 0) {
                throw BundleException(
                    "$place: logits_tolerance of ${case.name} is ${case.logitsTolerance}",
                    "it must be above 0; export again",
                )
            }
            listOf(case.promptIds, case.greedy, case.sampled, case.logits.tokenIds)
                .forEach { ids -> ids.forEach(::checkId) }
        }
        golden.rows.forEach { checkId(it.tokenId) }
        return golden
    }

    private fun checkId(id: Long) {
        if (id in 0 until vocabularySize) return
        throw BundleException(
            "$place: token id $id is outside the vocabulary, 0 to ${vocabularySize - 1}",
            "graph and golden cases must come from one export",
        )
    }

    private fun golden(json: JsonRecord): Golden {
        var cases = emptyList<GoldenCase>()
        var rows = emptyList<GoldenRow>()
        json.fields(setOf("schema_version", "cases", "rows")) { name ->
            when (name) {
                "schema_version" -> json.integer()
                "cases" -> cases = json.list { case(json) }
                "rows" -> rows = json.list { row(json) }
                else -> json.unknown(name)
            }
        }
        return Golden(cases, rows)
    }

    private fun row(json: JsonRecord): GoldenRow {
        var tokenId = 0L
        lateinit var digest: String
        json.fields(setOf("token_id", "bytes_sha256", "dequantized_sha256")) { name ->
            when (name) {
                "token_id" -> tokenId = json.integer()

                "bytes_sha256" -> digest = json.text()

                // Nothing here dequantizes experts: the operator works on them as they are stored.
                "dequantized_sha256" -> json.text()

                else -> json.unknown(name)
            }
        }
        return GoldenRow(tokenId, digest)
    }

    private fun case(json: JsonRecord): GoldenCase {
        lateinit var name: String
        lateinit var promptIds: LongArray
        lateinit var logits: GoldenLogits
        lateinit var greedy: LongArray
        lateinit var sampled: Pair<Sampling, LongArray>
        var text: String? = null
        var greedyText: String? = null
        var tolerance = 0.0
        val required = setOf("name", "text", "prompt_ids", "logits_tolerance", "logits", "greedy")
        json.fields(required + setOf("greedy_margin", "greedy_text", "sampled")) { field ->
            when (field) {
                "name" -> name = json.text()
                "text" -> text = json.nullable(json::text)
                "prompt_ids" -> promptIds = json.integers()
                "logits_tolerance" -> tolerance = json.number()
                "logits" -> logits = logits(json)
                "greedy" -> greedy = json.integers()
                "greedy_margin" -> json.number()
                "greedy_text" -> greedyText = json.nullable(json::text)
                "sampled" -> sampled = sampled(json)
                else -> json.unknown(field)
            }
        }
        val (sampling, ids) = sampled
        return GoldenCase(
            name,
            text,
            promptIds,
            tolerance,
            logits,
            greedy,
            greedyText,
            sampling,
            ids,
        )
    }

    private fun logits(json: JsonRecord): GoldenLogits {
        lateinit var tokenIds: LongArray
        lateinit var values: List<Double>
        var mean = 0.0
        var rootMeanSquare = 0.0
        json.fields(setOf("token_ids", "values", "mean", "root_mean_square")) { name ->
            when (name) {
                "token_ids" -> tokenIds = json.integers()
                "values" -> values = json.list(json::number)
                "mean" -> mean = json.number()
                "root_mean_square" -> rootMeanSquare = json.number()
                else -> json.unknown(name)
            }
        }
        if (tokenIds.size != values.size) json.refuse("logits has not as many values as token_ids")
        return GoldenLogits(tokenIds, values, mean, rootMeanSquare)
    }

    private fun sampled(json: JsonRecord): Pair<Sampling, LongArray> {
        var sampling = Sampling()
        lateinit var tokenIds: LongArray
        val required = setOf("temperature", "top_k", "top_p", "min_p", "seed", "token_ids")
        json.fields(required) { name ->
            when (name) {
                "temperature" -> sampling = sampling.copy(temperature = json.number())
                "top_k" -> sampling = sampling.copy(topK = topK(json))
                "top_p" -> sampling = sampling.copy(topP = json.number())
                "min_p" -> sampling = sampling.copy(minP = json.number())
                "seed" -> sampling = sampling.copy(seed = json.unsigned())
                "token_ids" -> tokenIds = json.integers()
                else -> json.unknown(name)
            }
        }
        return sampling to tokenIds
    }

    private fun topK(json: JsonRecord): Int {
        val value = json.integer()
        if (value !in 0..Int.MAX_VALUE) json.refuse("top_k is $value")
        return value.toInt()
    }
}
