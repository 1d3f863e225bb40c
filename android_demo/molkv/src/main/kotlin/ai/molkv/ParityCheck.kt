package ai.molkv

import ai.molkv.internal.sha256
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.FlowCollector
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.flow.toList
import java.nio.ByteBuffer
import kotlin.math.abs
import kotlin.math.sqrt

/** What one comparison with `golden.json` gave. */
public enum class ParityVerdict {
    PASSED,
    FAILED,

    /** The graph is quantized, and the golden answers are those of float32. */
    NOT_COMPARABLE,
}

/**
 * One comparison.
 *
 * @property case the golden case, or "rows"
 * @property what what was compared: row bytes, tokenizer, logits, greedy tokens, sampled tokens
 * @property detail figures, or what differs
 */
public data class ParityResult(
    val case: String,
    val what: String,
    val verdict: ParityVerdict,
    val detail: String,
)

/** Runs a bundle's golden cases on this device (docs/graph.md, "The parity ladder"). */
public class ParityCheck(
    private val bundle: MolkvBundle,
    private val session: MolkvSession,
) {
    private val backend = bundle.manifest.backends.getValue("onnx")

    /** The results as they come. Fails as [MolkvSession.generate] does. */
    public fun run(): Flow<ParityResult> =
        flow {
            val golden = bundle.golden()
            if (golden.rows.isNotEmpty()) emit(rows(golden.rows))
            for (case in golden.cases) check(case)
        }.flowOn(Dispatchers.Default)

    private suspend fun rows(rows: List<GoldenRow>): ParityResult {
        val changed =
            rows.filter { row ->
                sha256(checkNotNull(session.row(row.tokenId)).inputStream()) != row.bytesSha256
            }
        val ids = changed.map { it.tokenId }
        return result("rows", "row bytes", ids.isEmpty(), "${rows.size} rows", "differ: $ids")
    }

    private suspend fun FlowCollector<ParityResult>.check(case: GoldenCase) {
        if (session.hasTokenizer && case.text != null) emit(tokenizer(case, case.text))
        if (!backend.isFloat32) {
            val why = "dense weights are ${backend.dense}, the cache is ${backend.cache}"
            for (what in listOf(LOGITS, GREEDY, SAMPLED)) {
                emit(ParityResult(case.name, what, ParityVerdict.NOT_COMPARABLE, why))
            }
            return
        }
        emit(logits(case))
        emit(tokens(case, GREEDY, case.greedy, Sampling(), case.greedyText))
        emit(tokens(case, SAMPLED, case.sampled, case.sampling, null))
    }

    private suspend fun tokenizer(
        case: GoldenCase,
        text: String,
    ): ParityResult {
        val ids = session.encode(text)
        val same = ids.contentEquals(case.promptIds)
        val expected = case.promptIds.toList()
        return result(
            case.name,
            "tokenizer",
            same,
            "${ids.size} ids",
            "${ids.toList()} instead of $expected",
        )
    }

    private suspend fun logits(case: GoldenCase): ParityResult {
        var last = FloatArray(0)
        session.logits(case.promptIds) { logits, rows -> last = lastRow(logits, rows) }
        val distance = distance(last, case.logits)
        // A difference that is no number is none that passes.
        val same = distance <= case.logitsTolerance
        val figures = "differ by %.2g of %.2g".format(distance, case.logitsTolerance)
        return result(case.name, LOGITS, same, figures, figures)
    }

    private fun lastRow(
        logits: ByteBuffer,
        rows: Int,
    ): FloatArray {
        val vocabulary = session.model.vocabSize.toInt()
        val row = FloatArray(vocabulary)
        logits.asFloatBuffer().apply { position((rows - 1) * vocabulary) }.get(row)
        return row
    }

    private fun distance(
        logits: FloatArray,
        recorded: GoldenLogits,
    ): Double {
        val sum = logits.sumOf { it.toDouble() }
        val squares = logits.sumOf { it.toDouble() * it }
        val differences =
            recorded.tokenIds.mapIndexed {
                place,
                id,
                ->
                logits[id.toInt()] - recorded.values[place]
            } +
                (sum / logits.size - recorded.mean) +
                (sqrt(squares / logits.size) - recorded.rootMeanSquare)
        return differences.fold(0.0) { worst, difference ->
            if (difference.isNaN()) Double.NaN else maxOf(worst, abs(difference))
        }
    }

    private suspend fun tokens(
        case: GoldenCase,
        what: String,
        expected: LongArray,
        sampling: Sampling,
        text: String?,
    ): ParityResult {
        val options = GenerationOptions(expected.size, sampling, stopIds = emptySet())
        val tokens = session.generate(case.promptIds, options).toList()
        val ids = tokens.map { it.id }
        val streamed = tokens.joinToString("") { it.text }
        val sameText = text == null || !session.hasTokenizer || streamed == text
        val different = "$ids, “$streamed” instead of ${expected.toList()}, “$text”"
        return result(
            case.name,
            what,
            ids == expected.toList() && sameText,
            "${ids.size} tokens",
            different,
        )
    }

    private fun result(
        case: String,
        what: String,
        same: Boolean,
        passed: String,
        failed: String,
    ) = if (same) {
        ParityResult(case, what, ParityVerdict.PASSED, passed)
    } else {
        ParityResult(case, what, ParityVerdict.FAILED, failed)
    }

    private companion object {
        const val LOGITS = "logits"
        const val GREEDY = "greedy tokens"
        const val SAMPLED = "sampled tokens"
    }
}
