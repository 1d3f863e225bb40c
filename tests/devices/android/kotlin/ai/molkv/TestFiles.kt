package ai.molkv

import com.google.gson.JsonObject
import com.google.gson.JsonParser
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.runBlocking
import java.io.File

/** What the tests run on; `tests/devices/android/payloads.py` writes it. */
internal object TestFiles {
    private val root = File(checkNotNull(System.getProperty("molkv.test.files")))

    /** A bundle of the exporter's, not to be changed. */
    fun bundle(name: String): File = root.resolve("bundles").resolve(name)

    fun bundles(): List<File> = checkNotNull(root.resolve("bundles").listFiles()).sorted()

    /** What Python generates from the bundles. */
    val expected: JsonObject by lazy { json(root.resolve("expected.json")) }

    /** Broken bundles, and an `expected.json` that says how each is refused. */
    val attacks: File get() = root.resolve("attacks")

    fun json(file: File): JsonObject = JsonParser.parseString(file.readText()).asJsonObject

    /** A copy of a bundle that a test may break. */
    fun copyOf(name: String): File {
        val folder = File.createTempFile("bundle", "").apply { delete() }
        bundle(name).copyRecursively(folder)
        Runtime.getRuntime().addShutdownHook(Thread { folder.deleteRecursively() })
        return folder
    }
}

/** A bundle with its session, closed afterwards. */
internal suspend fun <Result> withSession(
    folder: File,
    options: SessionOptions = SessionOptions(threads = 1),
    work: suspend (MolkvSession) -> Result,
): Result = MolkvBundle.open(folder).openSession(options).use { work(it) }

/** The body of a test that suspends. */
internal fun suspending(body: suspend CoroutineScope.() -> Unit): Unit = runBlocking(block = body)
