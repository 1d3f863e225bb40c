package ai.molkv.demo

import ai.molkv.BundleFiles
import ai.molkv.ExpertsMode
import ai.molkv.InsufficientSpaceException
import ai.molkv.MolkvBundle
import ai.molkv.MolkvException
import ai.molkv.MolkvSession
import ai.molkv.ParityCheck
import ai.molkv.ParityResult
import ai.molkv.UsageException
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.launch

/**
 * What all screens show. It outlives them, so that turning the phone interrupts nothing.
 *
 * @property busy whether something runs, which [DemoModel.stop] ends
 * @property message what the user has to know: an error with its fix, or what goes on
 */
data class DemoState(
    val bundle: String = "",
    val busy: Boolean = false,
    val message: String = "",
    val answer: String = "",
    val statistics: String = "",
    val runs: List<BenchmarkRun> = emptyList(),
    val results: List<ParityResult> = emptyList(),
    val progress: Int? = null,
)

/**
 * The app without its screens.
 *
 * @param scope of the main thread
 * @param available bytes of memory that the device has left
 */
class DemoModel(
    private val scope: CoroutineScope,
    private val available: () -> Long,
    var settings: Settings = Settings(),
) {
    private val states = MutableStateFlow(DemoState())
    private var job: Job? = null
    private var bundle: MolkvBundle? = null
    private var session: MolkvSession? = null

    val state: StateFlow<DemoState> = states.asStateFlow()

    /** Opens a bundle in place of the one that is open. */
    fun open(files: BundleFiles): Unit =
        work("opening ${files.name}") {
            closeSession()
            bundle = null
            states.value = DemoState(busy = true, message = "opening ${files.name}")
            bundle = MolkvBundle.open(files)
            session()
            states.update { it.copy(bundle = files.name, message = "${files.name} is ready") }
        }

    fun generate(prompt: String): Unit =
        work("") {
            states.update { it.copy(answer = "", statistics = "") }
            val session = session()
            session.reset()
            session.generate(prompt, settings.generation).collect { token ->
                states.update {
                    it.copy(answer = it.answer + token.text, statistics = statistics(session))
                }
            }
        }

    fun benchmark(): Unit =
        work("measuring") {
            states.update { it.copy(runs = emptyList()) }
            Benchmark(session()).run().collect { run ->
                states.update { it.copy(runs = it.runs + run) }
            }
        }

    fun checkParity(): Unit =
        work("comparing") {
            states.update { it.copy(results = emptyList()) }
            val session = session()
            ParityCheck(checkNotNull(bundle), session).run().collect { result ->
                states.update { it.copy(results = it.results + result) }
            }
        }

    /** Copies a bundle and opens the copy. */
    fun import(
        importer: BundleImporter,
        source: DocumentSource,
    ): Unit =
        work("copying") {
            val files =
                try {
                    importer.copy(
                        source,
                    ) { permille -> states.update { it.copy(progress = permille) } }
                } finally {
                    states.update { it.copy(progress = null) }
                }
            closeSession()
            bundle = MolkvBundle.open(files)
            session()
            states.update { it.copy(bundle = files.name, message = "${files.name} is ready") }
        }

    /** Ends what runs. */
    fun stop() {
        job?.cancel()
    }

    /** Other settings need another session. */
    fun apply(changed: Settings) {
        if (changed.session != settings.session) {
            stop()
            closeSession()
        }
        settings = changed
    }

    /** Gives memory back; the next use loads the graph anew. */
    fun trimMemory() {
        if (!states.value.busy) closeSession()
    }

    private suspend fun session(): MolkvSession {
        session?.let { return it }
        val bundle = bundle ?: throw UsageException("no bundle is open", "choose one under Bundles")
        checkMemory(bundle)
        return bundle.openSession(settings.session).also { session = it }
    }

    private fun checkMemory(bundle: MolkvBundle) {
        val resident =
            when (settings.expertsMode) {
                ExpertsMode.STORAGE -> false
                ExpertsMode.RESIDENT -> true
                ExpertsMode.AUTO -> bundle.expertBytes <= ExpertsMode.RESIDENT_BYTES
            }
        val needed = bundle.graphBytes + if (resident) bundle.expertBytes else 0
        val left = available()
        if (needed <= left) return
        throw InsufficientSpaceException(
            "${bundle.name}: needs ${needed shr 20} MB of memory, the device has ${left shr 20} MB",
            "close other apps, keep expert rows on storage, or use a smaller bundle",
        )
    }

    private fun closeSession() {
        session?.close()
        session = null
    }

    private fun statistics(session: MolkvSession): String =
        with(session.statistics.value) {
            listOf(
                "prefill %.1f tokens/s".format(prefillTokensPerSecond),
                "decode %.1f tokens/s".format(decodeTokensPerSecond),
                "first token after %.0f ms".format(1e3 * timeToFirstToken),
                "lookup %.1f µs a token".format(lookupMicrosecondsPerToken),
                "%,d bytes read in %d rows".format(bytesRead, rowsRead),
                "%d MB in memory".format(Memory.residentBytes() shr 20),
            ).joinToString("\n")
        }

    /** One thing at a time: what comes while something runs is refused by the buttons. */
    private fun work(
        message: String,
        work: suspend () -> Unit,
    ) {
        if (states.value.busy) return
        states.update { it.copy(busy = true, message = message) }
        job =
            scope.launch {
                try {
                    work()
                    states.update { if (it.message == message) it.copy(message = "") else it }
                } catch (error: CancellationException) {
                    states.update { it.copy(message = "stopped") }
                    throw error
                } catch (error: MolkvException) {
                    states.update { it.copy(message = error.message.orEmpty()) }
                } catch (error: OutOfMemoryError) {
                    closeSession()
                    states.update { it.copy(message = "The device has not enough memory.") }
                } finally {
                    states.update { it.copy(busy = false) }
                }
            }
    }
}
