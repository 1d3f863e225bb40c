package ai.molkv.demo

import ai.molkv.GenerationOptions
import ai.molkv.MolkvSession
import ai.molkv.Statistics
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.flow

/** One run's figures. */
data class BenchmarkRun(
    val prefillTokensPerSecond: Double,
    val decodeTokensPerSecond: Double,
    val timeToFirstTokenMilliseconds: Double,
    val lookupMicrosecondsPerToken: Double,
    val bytesRead: Long,
    val residentMegabytes: Long,
)

/** Average, least and most of a figure over all runs. */
data class Summary(
    val figure: String,
    val average: Double,
    val least: Double,
    val most: Double,
)

/** Runs of one prompt, which fills a quarter of the context, and as many new tokens. */
class Benchmark(
    private val session: MolkvSession,
    private val runs: Int = 5,
) {
    /** The runs as they come; one before them warms up and is not counted. */
    fun run(): Flow<BenchmarkRun> =
        flow {
            val model = session.model
            val count = (model.context / 4).coerceIn(1, MOST_TOKENS).toInt()
            val prompt = LongArray(count) { (it * STRIDE) % model.vocabSize }
            val options = GenerationOptions(count, stopIds = emptySet())
            repeat(runs + 1) { run ->
                session.reset()
                session.generate(prompt, options).collect()
                if (run > 0) emit(figures(session.statistics.value))
            }
        }

    private fun figures(statistics: Statistics) =
        BenchmarkRun(
            statistics.prefillTokensPerSecond,
            statistics.decodeTokensPerSecond,
            MILLISECONDS * statistics.timeToFirstToken,
            statistics.lookupMicrosecondsPerToken,
            statistics.bytesRead,
            Memory.residentBytes() shr 20,
        )

    companion object {
        private const val MOST_TOKENS = 128L
        private const val STRIDE = 7919L
        private const val MILLISECONDS = 1e3
        private val FIGURES: List<Pair<String, (BenchmarkRun) -> Double>> =
            listOf(
                "prefill tokens/s" to { it.prefillTokensPerSecond },
                "decode tokens/s" to { it.decodeTokensPerSecond },
                "first token ms" to { it.timeToFirstTokenMilliseconds },
                "lookup us" to { it.lookupMicrosecondsPerToken },
                "bytes read" to { it.bytesRead.toDouble() },
                "RSS MB" to { it.residentMegabytes.toDouble() },
            )

        fun summarize(runs: List<BenchmarkRun>): List<Summary> =
            if (runs.isEmpty()) {
                emptyList()
            } else {
                FIGURES.map { (name, figure) ->
                    val values = runs.map(figure)
                    Summary(name, values.average(), values.min(), values.max())
                }
            }

        /** One line a run, and one each for average, least and most. */
        fun csv(runs: List<BenchmarkRun>): String {
            val header = "run," + FIGURES.joinToString(",") { it.first }
            val lines =
                runs.mapIndexed { number, run ->
                    line("${number + 1}", FIGURES.map { (_, figure) -> figure(run) })
                }
            val summary = summarize(runs)
            val totals =
                listOf(
                    line("average", summary.map { it.average }),
                    line("min", summary.map { it.least }),
                    line("max", summary.map { it.most }),
                )
            return (listOf(header) + lines + totals).joinToString("\n", postfix = "\n")
        }

        private fun line(
            name: String,
            values: List<Double>,
        ) = "$name," + values.joinToString(",") { "%.3f".format(java.util.Locale.ROOT, it) }
    }
}
