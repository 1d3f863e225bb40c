package ai.molkv.demo

import ai.molkv.ExpertsMode
import ai.molkv.GenerationOptions
import ai.molkv.Sampling
import ai.molkv.SessionOptions

/** What the settings screen sets. */
data class Settings(
    val sampling: Sampling = Sampling(temperature = 0.8, topK = 40, topP = 0.95),
    val maxNewTokens: Int = 128,
    val threads: Int = 0,
    val expertsMode: ExpertsMode = ExpertsMode.STORAGE,
) {
    val session: SessionOptions get() = SessionOptions(threads, expertsMode = expertsMode)

    val generation: GenerationOptions get() = GenerationOptions(maxNewTokens, sampling)

    /** As texts by name, for the preferences and the screen. */
    fun toTexts(): Map<String, String> =
        mapOf(
            TEMPERATURE to sampling.temperature.toString(),
            TOP_K to sampling.topK.toString(),
            TOP_P to sampling.topP.toString(),
            MIN_P to sampling.minP.toString(),
            SEED to sampling.seed.toString(),
            MAX_NEW_TOKENS to maxNewTokens.toString(),
            THREADS to threads.toString(),
            EXPERTS_MODE to expertsMode.name,
        )

    companion object {
        const val TEMPERATURE = "temperature"
        const val TOP_K = "top k"
        const val TOP_P = "top p"
        const val MIN_P = "min p"
        const val SEED = "seed"
        const val MAX_NEW_TOKENS = "most new tokens"
        const val THREADS = "threads"
        const val EXPERTS_MODE = "experts mode"
        private const val MOST_THREADS = 64

        /** @throws IllegalArgumentException a text is no number, or one that cannot be; says which */
        fun of(texts: Map<String, String>): Settings {
            fun <Value : Any> value(
                name: String,
                read: (String) -> Value?,
            ): Value {
                val text = texts[name].orEmpty().trim()
                return requireNotNull(read(text)) { "$name: “$text” cannot be used" }
            }
            val sampling =
                Sampling(
                    temperature =
                        value(TEMPERATURE) {
                            it.toDoubleOrNull()?.takeIf { t ->
                                t >= 0
                            }
                        },
                    topK = value(TOP_K) { it.toIntOrNull()?.takeIf { k -> k >= 0 } },
                    topP = value(TOP_P) { it.toDoubleOrNull()?.takeIf { p -> p > 0 && p <= 1 } },
                    minP = value(MIN_P) { it.toDoubleOrNull()?.takeIf { p -> p in 0.0..1.0 } },
                    seed = value(SEED) { it.toULongOrNull() },
                )
            return Settings(
                sampling,
                value(MAX_NEW_TOKENS) { it.toIntOrNull()?.takeIf { count -> count > 0 } },
                value(THREADS) { it.toIntOrNull()?.takeIf { count -> count in 0..MOST_THREADS } },
                value(EXPERTS_MODE) { text -> ExpertsMode.entries.find { it.name == text } },
            )
        }
    }
}
