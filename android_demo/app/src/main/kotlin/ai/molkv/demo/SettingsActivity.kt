package ai.molkv.demo

import ai.molkv.ExpertsMode
import android.os.Bundle
import android.widget.RadioButton

/** Sampling, threads, and where expert rows are. */
class SettingsActivity : DemoActivity(R.layout.settings) {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        val texts = model.settings.toTexts()
        for ((name, id) in FIELDS) text(id).text = texts.getValue(name)
        for ((mode, id) in MODES) mode(id).isChecked = mode == model.settings.expertsMode
        onClick(R.id.save) { save() }
    }

    override fun show(state: DemoState) = Unit

    private fun save() {
        val mode = MODES.entries.first { mode(it.value).isChecked }.key
        val texts = FIELDS.mapValues { text(it.value).text.toString() }
        text(R.id.message).text =
            try {
                demo.save(Settings.of(texts + (Settings.EXPERTS_MODE to mode.name)))
                "saved"
            } catch (error: IllegalArgumentException) {
                error.message
            }
    }

    private fun mode(id: Int): RadioButton = findViewById(id)

    private companion object {
        val FIELDS =
            mapOf(
                Settings.TEMPERATURE to R.id.temperature,
                Settings.TOP_K to R.id.top_k,
                Settings.TOP_P to R.id.top_p,
                Settings.MIN_P to R.id.min_p,
                Settings.SEED to R.id.seed,
                Settings.MAX_NEW_TOKENS to R.id.max_new_tokens,
                Settings.THREADS to R.id.threads,
            )
        val MODES =
            mapOf(
                ExpertsMode.STORAGE to R.id.experts_storage,
                ExpertsMode.RESIDENT to R.id.experts_resident,
                ExpertsMode.AUTO to R.id.experts_auto,
            )
    }
}
