package ai.molkv.demo

import ai.molkv.TestFiles
import android.app.Activity
import android.app.ActivityManager
import android.content.ClipboardManager
import android.content.Context
import android.content.Intent
import android.net.Uri
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.RadioButton
import android.widget.TextView
import kotlinx.coroutines.delay
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withContext
import kotlinx.coroutines.withTimeout
import org.junit.After
import org.junit.Before
import org.junit.Test
import java.io.File
import kotlin.test.assertEquals
import kotlin.test.assertTrue

/** The screens, by what a person sees and presses, on fakes of Android's classes. */
class ScreensTest {
    private lateinit var application: DemoApplication

    @Before
    fun install() {
        val data = File(System.getProperty("molkv.app.data"))
        data.deleteRecursively()
        TestFiles.bundle("small").copyRecursively(data.resolve("external/small"))
        application = DemoApplication()
        application.onCreate()
        ActivityManager.fakeAvailable = 4L shl 30
    }

    @After
    fun restoreSettings() = onMain { application.save(Settings()) }

    private fun <Result> onMain(work: () -> Result): Result =
        runBlocking { withContext(application.mainDispatcher) { work() } }

    private fun until(condition: () -> Boolean) =
        runBlocking { withTimeout(60_000) { while (!onMain(condition)) delay(5) } }

    private fun <Screen : Activity> show(screen: Screen): Screen =
        screen.also { onMain { it.fakeCreate() } }

    private fun Activity.text(id: Int): String = findViewById<TextView>(id).text.toString()

    private fun Activity.press(id: Int) = onMain { findViewById<View>(id).performClick() }

    private fun ready(): MainActivity {
        val screen = show(MainActivity())
        until { screen.findViewById<View>(R.id.generate).isEnabled }
        return screen
    }

    @Test
    fun aPromptIsAnsweredWithStatistics() {
        val screen = ready()
        onMain { screen.findViewById<TextView>(R.id.prompt).text = "The whale" }
        assertTrue(screen.press(R.id.generate))
        until { screen.text(R.id.statistics).isNotEmpty() && !application.model.state.value.busy }
        assertTrue(screen.text(R.id.answer).isNotEmpty())
        for (figure in listOf(
            "prefill",
            "decode",
            "first token",
            "lookup",
            "bytes read",
            "memory",
        )) {
            assertTrue(figure in screen.text(R.id.statistics), screen.text(R.id.statistics))
        }
    }

    @Test
    fun turningThePhoneInterruptsNothing() {
        val first = ready()
        onMain { first.findViewById<TextView>(R.id.prompt).text = "The ship" }
        first.press(R.id.generate)
        onMain { first.fakeDestroy() }
        val second = show(MainActivity())
        until { !application.model.state.value.busy }
        until { second.text(R.id.answer) == application.model.state.value.answer }
        assertTrue(second.text(R.id.answer).isNotEmpty())
    }

    @Test
    fun stopEndsTheAnswer() {
        onMain { application.save(Settings(maxNewTokens = Int.MAX_VALUE)) }
        val screen = ready()
        onMain { screen.findViewById<TextView>(R.id.prompt).text = "The ship" }
        screen.press(R.id.generate)
        screen.press(R.id.stop)
        until { !application.model.state.value.busy }
        until { !screen.findViewById<View>(R.id.stop).isEnabled }
    }

    @Test
    fun anEmptyPromptAndAFullMemoryAreExplained() {
        val screen = ready()
        screen.press(R.id.generate)
        until { "the prompt is empty" in screen.text(R.id.message) }
        onMain { application.model.trimMemory() }
        ActivityManager.fakeAvailable = 100
        onMain { screen.findViewById<TextView>(R.id.prompt).text = "The ship" }
        screen.press(R.id.generate)
        until { "MB of memory" in screen.text(R.id.message) }
    }

    @Test
    fun settingsAreCheckedKeptAndUsed() {
        ready()
        val screen = show(SettingsActivity())
        onMain { screen.findViewById<TextView>(R.id.top_p).text = "2" }
        screen.press(R.id.save)
        assertTrue("top p" in screen.text(R.id.message), screen.text(R.id.message))
        onMain {
            screen.findViewById<TextView>(R.id.top_p).text = "0.5"
            screen.findViewById<TextView>(R.id.seed).text = "18446744073709551615"
            screen.findViewById<RadioButton>(R.id.experts_storage).isChecked = false
            screen.findViewById<RadioButton>(R.id.experts_resident).isChecked = true
        }
        screen.press(R.id.save)
        assertEquals(ULong.MAX_VALUE, application.model.settings.sampling.seed)
        val again = show(SettingsActivity())
        assertEquals("0.5", again.text(R.id.top_p))
        assertTrue(again.findViewById<RadioButton>(R.id.experts_resident).isChecked)
        assertEquals(application.model.settings, DemoApplication().model.settings)
    }

    @Test
    fun theParityScreenShowsEveryCase() {
        ready()
        val screen = show(ParityActivity())
        screen.press(R.id.run_parity)
        until { screen.text(R.id.results).isNotEmpty() && !application.model.state.value.busy }
        until {
            screen
                .text(
                    R.id.results,
                ).lines()
                .size == application.model.state.value.results.size
        }
        val lines = screen.text(R.id.results).lines()
        assertTrue(
            lines.size > 4 && lines.all { it.startsWith("pass: ") },
            lines.joinToString("\n"),
        )
    }

    @Test
    fun theBenchmarkIsCopiedAsCsv() {
        ready()
        val screen = show(BenchmarkActivity())
        until { !screen.findViewById<View>(R.id.copy_csv).isEnabled }
        screen.press(R.id.run_benchmark)
        until {
            application.model.state.value.runs.size == 5 && !application.model.state.value.busy
        }
        until { screen.findViewById<View>(R.id.copy_csv).isEnabled }
        screen.press(R.id.copy_csv)
        val clipboard = screen.getSystemService(Context.CLIPBOARD_SERVICE) as ClipboardManager
        val lines =
            clipboard.fakeClip.text
                .trim()
                .lines()
        assertEquals(
            listOf("run", "1", "2", "3", "4", "5", "average", "min", "max"),
            lines.map {
                it.substringBefore(",")
            },
        )
        assertEquals(setOf(7), lines.map { it.split(",").size }.toSet())
        assertTrue("decode tokens/s" in screen.text(R.id.figures))
    }

    @Test
    fun aPickedFolderIsImportedAndUsed() {
        ready()
        val screen = show(BundlesActivity())
        screen.press(R.id.import_bundle)
        assertEquals(Intent.ACTION_OPEN_DOCUMENT_TREE, screen.fakeStarted.single().action)
        val picked = Intent("").setData(Uri.parse(TestFiles.bundle("plain").path))
        onMain { screen.fakeResult(BundlesActivity.PICKED, picked) }
        until {
            application.model.state.value.bundle
                .endsWith("bundles/plain")
        }
        until { !application.model.state.value.busy }
        val list = screen.findViewById<ViewGroup>(R.id.list)
        until { list.fakeChildren.size == 2 }
        onMain { (list.fakeChildren.last() as Button).performClick() }
        until {
            application.model.state.value.bundle
                .endsWith("external/small")
        }
        until { !application.model.state.value.busy }
    }

    @Test
    fun aFolderThatIsNoBundleIsExplained() {
        ready()
        val screen = show(BundlesActivity())
        val folder = File.createTempFile("none", "bundle").apply { delete() }.apply { mkdirs() }
        onMain {
            screen.fakeResult(
                BundlesActivity.PICKED,
                Intent("").setData(Uri.parse(folder.path)),
            )
        }
        until { "so it is no bundle" in screen.text(R.id.message) }
    }

    @Test
    fun everyControlCanBeReadAloud() {
        for (screen in listOf(
            MainActivity(),
            BundlesActivity(),
            SettingsActivity(),
            BenchmarkActivity(),
            ParityActivity(),
        )) {
            show(screen)
            val unnamed =
                views(screen.fakeContent()).filter {
                    it.id != 0 && name(it).isBlank() &&
                        needsName(it)
                }
            assertEquals(
                emptyList(),
                unnamed.map { "${screen.javaClass.simpleName}: ${it.javaClass}" },
            )
        }
    }

    private fun needsName(view: View) =
        view is Button || view.javaClass.simpleName in setOf("EditText", "ProgressBar")

    private fun name(view: View) =
        "${view.contentDescription ?: ""}${(view as? TextView)?.let {
            "${it.text}${it.hint}"
        } ?: ""}"

    private fun views(view: View): List<View> =
        listOf(view) + ((view as? ViewGroup)?.fakeChildren?.flatMap(::views) ?: emptyList())
}
