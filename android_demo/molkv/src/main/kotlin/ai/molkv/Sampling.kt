package ai.molkv

/**
 * How tokens are chosen. The same seed gives the same tokens as every other molkv runtime
 * (docs/sampling.md).
 *
 * @property temperature 0 always takes the best token
 * @property topK 0 keeps all
 * @property topP 1 keeps all; greater than 0
 * @property minP 0 keeps all; at most 1
 * @property seed all 64 bits count
 */
public data class Sampling(
    val temperature: Double = 0.0,
    val topK: Int = 0,
    val topP: Double = 1.0,
    val minP: Double = 0.0,
    val seed: ULong = 0u,
)
