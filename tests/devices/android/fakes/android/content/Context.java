package android.content;

import android.content.res.AssetManager;
import android.content.res.Resources;
import java.io.File;
import java.util.HashMap;
import java.util.Map;

public class Context {
  public static final int MODE_PRIVATE = 0;
  public static final String CLIPBOARD_SERVICE = "clipboard";
  public static final String ACTIVITY_SERVICE = "activity";
  private static final Map<String, SharedPreferences> PREFERENCES = new HashMap<>();
  private static final Map<String, Object> SERVICES = new HashMap<>();
  private static final AssetManager ASSETS = new AssetManager();
  private static final ContentResolver RESOLVER = new ContentResolver();

  private static File folder(String name) {
    File folder = new File(System.getProperty("molkv.app.data"), name);
    folder.mkdirs();
    return folder;
  }

  public File getFilesDir() { return folder("files"); }
  public File getNoBackupFilesDir() { return folder("no_backup"); }
  public File getExternalFilesDir(String type) { return folder("external"); }
  public AssetManager getAssets() { return ASSETS; }
  public Resources getResources() { return new Resources(); }
  public ContentResolver getContentResolver() { return RESOLVER; }
  public Context getApplicationContext() { return android.app.Application.current(); }
  public final String getString(int id) { return getResources().getString(id); }
  public final String getString(int id, Object... values) {
    return String.format(getString(id), values);
  }
  public SharedPreferences getSharedPreferences(String name, int mode) {
    return PREFERENCES.computeIfAbsent(name, key -> new SharedPreferences());
  }
  public Object getSystemService(String name) {
    return SERVICES.computeIfAbsent(
        name,
        key -> key.equals(CLIPBOARD_SERVICE) ? new ClipboardManager() : new android.app.ActivityManager());
  }
}
