package ai.molkv.demo

import ai.molkv.BundleFiles
import ai.molkv.FolderFiles
import ai.molkv.android.AssetFiles
import android.app.Application
import android.os.Handler
import android.os.Looper
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.asCoroutineDispatcher
import java.io.File
import java.util.concurrent.Executor

/** Holds what outlives the screens. */
class DemoApplication : Application() {
    private val main = Handler(Looper.getMainLooper())

    /** The main thread for coroutines. */
    val mainDispatcher = Executor { main.post(it) }.asCoroutineDispatcher()

    val model by lazy {
        val scope = CoroutineScope(SupervisorJob() + mainDispatcher)
        DemoModel(scope, { Memory.availableBytes(this) }, storedSettings())
    }

    val importer by lazy { BundleImporter(filesDir.resolve("bundles")) }

    /** Bundles to choose from: imported ones, those that `adb push` brought, the built-in one. */
    fun bundles(): List<BundleFiles> {
        val pushed = getExternalFilesDir(null)?.let { BundleImporter(it).bundles() }.orEmpty()
        val folders: List<File> = importer.bundles() + pushed
        val builtIn = listOf(AssetFiles(this, BUILT_IN)).filter { it.size("manifest.json") != null }
        return folders.map(::FolderFiles) + builtIn
    }

    /** Opens the first bundle, unless one was opened already. */
    fun openDefault() {
        val state = model.state.value
        if (state.bundle.isEmpty() && !state.busy && state.message.isEmpty()) {
            bundles().firstOrNull()?.let(model::open)
        }
    }

    fun save(settings: Settings) {
        val editor = preferences().edit()
        for ((name, text) in settings.toTexts()) editor.putString(name, text)
        editor.apply()
        model.apply(settings)
    }

    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        if (level >= TRIM_MEMORY_BACKGROUND) model.trimMemory()
    }

    private fun storedSettings(): Settings {
        val defaults = Settings().toTexts()
        val texts =
            defaults.mapValues { (name, text) ->
                preferences().getString(name, text) ?: text
            }
        // What an older version stored may not be usable any more.
        return runCatching { Settings.of(texts) }.getOrDefault(Settings())
    }

    private fun preferences() = getSharedPreferences("settings", MODE_PRIVATE)

    private companion object {
        const val BUILT_IN = "bundle"
        const val TRIM_MEMORY_BACKGROUND = 40
    }
}
