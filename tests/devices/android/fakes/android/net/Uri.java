package android.net;

public class Uri {
  public final String path;

  private Uri(String path) { this.path = path; }
  public static Uri parse(String text) { return new Uri(text); }
  public String getLastPathSegment() { return path.substring(path.lastIndexOf('/') + 1); }
}
